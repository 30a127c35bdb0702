"""Does the DEQ-Transformer learn what its explicit peer learns, and what does it cost? Two finished runs, compared.

`python -m benchmarks.tinyshakespeare DEQ_RUN EXPLICIT_RUN [--variant NAME=RUN ...] [--markdown] [--json FILE]`, on the
machine of the runs `poise train language --recipe tinyshakespeare-deq` and `poise train language --recipe
tinyshakespeare-explicit`; a variant is a run of the first with other settings, and shows what one of them brings.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.results import FOLDER, environment, markdown, write
from benchmarks.runs import evaluated
from poise.tasks.run_folder import RunFolder

MEMORY = 16  # characters; of 16, 32 and 64 what lowers either network's loss most
RULE = (
    "Validation loss in nats a character over the whole validation split; CPU seconds of the training steps alone; "
    "bytes held for the backward by one training batch up to the loss, and by the hidden layers alone. Reached: CPU "
    "seconds of training at the first validation with a loss no larger than the explicit network's last. With memory: "
    f"the same network, seeing {MEMORY} characters before each window too, which training never showed it."
)
KEPT = (
    "recipe", "seed", "steps", "parameters", "versions", "val_loss", "train_seconds", "train_cpu_seconds",
    "activation_bytes", "block_activation_bytes", "mean_forward_evaluations", "mean_backward_evaluations",
    "mean_validation_evaluations", "statuses", "validation_statuses",
)  # fmt: skip


def read_run(folder: Path) -> dict[str, Any]:
    """Return what is kept of a run's summary, and its validations."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("val_loss")]
    validations = [{name: float(row[name]) for name in ("step", "val_loss", "train_cpu_seconds")} for row in rows]
    trainer = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["trainer"]
    kept = {name: summary[name] for name in KEPT if name in summary}
    threads = trainer["threads"] or environment()["threads"]
    return {**kept, "threads": threads, "validations": validations}


def with_memory(folder: Path) -> dict[str, Any]:
    """Return what `read_run` does, and the loss with a memory."""
    return {**read_run(folder), "val_loss_with_memory": evaluated(RunFolder(folder), "valid", MEMORY)["val_loss"]}


def compare(
    deq: dict[str, Any], explicit: dict[str, Any], variants: Mapping[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Return all runs, with when each reached the explicit network's last loss."""
    runs = {"DEQTransformer": deq, "TransformerLM": explicit, **(variants or {})}
    for run in runs.values():
        passed = [row for row in run["validations"] if row["val_loss"] <= explicit["validations"][-1]["val_loss"]]
        run["reached_cpu_seconds"] = passed[0]["train_cpu_seconds"] if passed else None
    return {"rule": RULE, "runs": runs}


def table(content: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    unit = content["runs"]["TransformerLM"]["train_cpu_seconds"]

    def line(name: str, run: dict[str, Any]) -> list[str]:
        reached = run["reached_cpu_seconds"]
        return [
            name,
            f"{run['parameters']:,}",
            f"{run['val_loss']:.3f}",
            f"{run['val_loss_with_memory']:.3f}" if "val_loss_with_memory" in run else "",
            f"{run['train_cpu_seconds']:.0f}",
            f"{run['train_cpu_seconds'] / unit:.2f}",
            "never" if reached is None else f"{reached:.0f}",
            f"{run['activation_bytes'] / 1e6:.1f}",
            f"{run['block_activation_bytes'] / 1e6:.1f}",
        ]

    costs = ["CPU, s", "ratio", "reached, s", "whole step, MB", "hidden layers, MB"]
    header = ["network", "parameters", "loss", "with memory", *costs]
    return markdown(header, (line(*item) for item in content["runs"].items()), numbers=range(1, len(header)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("deq", type=Path, metavar="DEQ_RUN")
    parser.add_argument("explicit", type=Path, metavar="EXPLICIT_RUN")
    parser.add_argument(
        "--json", type=Path, default=FOLDER / "tinyshakespeare.json", help="where the result is written"
    )
    parser.add_argument("--markdown", action="store_true", help="print the README's table and nothing else")
    parser.add_argument("--variant", action="append", default=[], metavar="NAME=RUN", help="another run to set beside")
    options = parser.parse_args()
    runs = with_memory(options.deq), with_memory(options.explicit)
    named = (variant.partition("=") for variant in options.variant)
    variants = {name: with_memory(Path(folder)) for name, _, folder in named}
    content = {"environment": {**environment(), "threads": runs[0]["threads"]}, **compare(*runs, variants)}
    write(options.json, content)
    print(table(content) if options.markdown else f"{RULE}\n\n{table(content)}")


if __name__ == "__main__":
    main()
