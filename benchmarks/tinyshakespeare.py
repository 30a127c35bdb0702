"""Does the DEQ-Transformer learn what its explicit peer learns, and what does it cost? Two finished runs, compared.

`python -m benchmarks.tinyshakespeare DEQ_RUN EXPLICIT_RUN [--variant NAME=RUN ...] [--markdown] [--json FILE]`, on the
machine of the runs `poise train language --recipe tinyshakespeare-deq` and `poise train language --recipe
tinyshakespeare-explicit`; a variant is a run of the first with other settings, and shows what one of them brings.
"""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks import command
from benchmarks.results import environment, markdown
from benchmarks.runs import evaluated, opened, training_step
from benchmarks.timing import alternate
from poise.cli.memory import keep_freed_memory
from poise.tasks.run_folder import RunFolder

DEQ, PEER = "DEQTransformer", "TransformerLM"
MEMORY = 16  # characters; of 16, 32 and 64 what lowers either network's loss most
RULE = (
    "Validation loss in nats a character over the whole validation split; CPU seconds of the training steps alone, as "
    "the run counted them beside whatever else the machine did. Step: milliseconds of CPU time of one training step of "
    "the trained network, the median of rounds in which all alternate in one process; ratio: of all steps of a run "
    "by this measure, steps of shallow training counted as what they take. Reached: CPU seconds of training at "
    "the first validation with a loss no larger than the explicit network's last. Bytes held for the backward by one "
    "training batch up to the loss, and by the hidden layers alone. With memory: the same network, seeing "
    f"{MEMORY} characters before each window too, which training never showed it."
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


def measure(folders: Mapping[str, Path], rounds: int) -> dict[str, Any]:
    """Time a step of every run, evaluate what is not evaluated yet, and return the result."""
    costs = step_milliseconds(folders, rounds)
    runs = {name: {**with_memory(folder), "step_milliseconds": costs[name]} for name, folder in folders.items()}
    return {"rule": RULE, "rounds": rounds, "runs": compare(runs)}


def step_milliseconds(folders: Mapping[str, Path], rounds: int) -> dict[str, float]:
    """Return what a mean step of each run costs, timed in turns, memory being kept as in the command."""
    keep_freed_memory()
    calls: dict[str, Callable[[], None]] = {}
    shares: dict[str, float] = {}
    for name, folder in folders.items():
        task = opened(folder)
        shallow = task.config.pretraining.steps
        shares[name] = min(1.0, shallow / task.config.trainer.max_steps)
        calls[name] = training_step(task, shallow)
        if shallow:
            calls[f"{name}, shallow"] = training_step(opened(folder))
    medians = {name: 1e3 * statistics.median(times) for name, times in alternate(calls, rounds).items()}

    def mean(name: str) -> float:
        share = shares[name]
        return (1 - share) * medians[name] + (share * medians[f"{name}, shallow"] if share else 0.0)

    return {name: round(mean(name), 2) for name in folders}


def compare(runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return all runs, with when each reached the explicit network's last loss."""
    last = runs[PEER]["validations"][-1]["val_loss"]
    for run in runs.values():
        passed = [row for row in run["validations"] if row["val_loss"] <= last]
        run["reached_cpu_seconds"] = passed[0]["train_cpu_seconds"] if passed else None
    return runs


def table(content: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    peer = content["runs"][PEER]
    unit = peer["steps"] * peer["step_milliseconds"]

    def line(name: str, run: dict[str, Any]) -> list[str]:
        reached = run["reached_cpu_seconds"]
        return [
            name,
            f"{run['parameters']:,}",
            f"{run['val_loss']:.3f}",
            f"{run['val_loss_with_memory']:.3f}" if "val_loss_with_memory" in run else "",
            f"{run['train_cpu_seconds']:.0f}",
            f"{run['step_milliseconds']:.0f}",
            f"{run['steps'] * run['step_milliseconds'] / unit:.2f}",
            "never" if reached is None else f"{reached:.0f}",
            f"{run['activation_bytes'] / 1e6:.1f}",
            f"{run['block_activation_bytes'] / 1e6:.1f}",
        ]

    costs = ["CPU, s", "step, ms", "ratio", "reached, s", "whole step, MB", "hidden layers, MB"]
    header = ["network", "parameters", "loss", "with memory", *costs]
    return markdown(header, (line(*item) for item in content["runs"].items()), numbers=range(1, len(header)))


def report(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the rule and the table."""
    return RULE, table(content)


def main() -> None:
    parser = command.parser(__doc__, "tinyshakespeare", rounds=41)
    parser.add_argument("deq", type=Path, metavar="DEQ_RUN")
    parser.add_argument("explicit", type=Path, metavar="EXPLICIT_RUN")
    parser.add_argument("--variant", action="append", default=[], metavar="NAME=RUN", help="another run to set beside")
    options = parser.parse_args()
    named = (variant.partition("=") for variant in options.variant)
    folders = {DEQ: options.deq, PEER: options.explicit, **{name: Path(folder) for name, _, folder in named}}
    command.run(options, partial(measure, folders, options.rounds), table, report, peer=False)


if __name__ == "__main__":
    main()
