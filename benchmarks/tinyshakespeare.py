"""Does the DEQ-Transformer learn what its explicit peer learns, and what does it cost? Finished runs, compared.

`python -m benchmarks.tinyshakespeare NAME=RUN [...] [--markdown] [--json FILE]`, on the machine of the runs `poise
train language --recipe tinyshakespeare-deq` and `poise train language --recipe tinyshakespeare-explicit`, each on one
thread. Runs of one name differ in their seed; the explicit ones are named TransformerLM. Other names are for runs with
other settings, and show what one of them brings.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks import command
from benchmarks.results import markdown
from benchmarks.runs import evaluated, opened, training_step
from benchmarks.timing import alternate
from poise.cli.memory import keep_freed_memory
from poise.tasks.optimization import build_optimizer
from poise.tasks.run_folder import RunFolder

PEER = "TransformerLM"
MEMORY = 16  # characters; of 16, 32 and 64 what lowers either network's loss most
RULE = (
    "Validation loss in nats a character over the whole validation split, of each seed; below the peer: in how many "
    "seeds the network ends no higher than the explicit one. CPU: seconds of the training steps alone, the mean over "
    "seeds, as the runs counted them beside whatever else the machine did. Step: milliseconds of CPU time of a typical "
    "training step of the trained network, the median of rounds in which all alternate in one process; ratio: of all "
    "steps of a run by this measure, steps of shallow training counted as what they take. Bytes held for the backward "
    "by one training batch up to the loss, and by the hidden layers alone. With memory: the mean loss of the same "
    f"networks seeing {MEMORY} characters before each window too, which training never showed them."
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
    return {**{name: summary[name] for name in KEPT if name in summary}, "validations": validations}


def with_memory(folder: Path) -> dict[str, Any]:
    """Return what `read_run` does, and the loss with a memory."""
    return {**read_run(folder), "val_loss_with_memory": evaluated(RunFolder(folder), "valid", MEMORY)["val_loss"]}


def measure(folders: Mapping[str, Sequence[Path]], rounds: int) -> dict[str, Any]:
    """Time a step of the first run of every network, evaluate all that are not evaluated yet, and return the result."""
    costs = step_milliseconds({name: seeds[0] for name, seeds in folders.items()}, rounds)
    networks = {
        name: {"step_milliseconds": costs[name], "runs": [with_memory(folder) for folder in seeds]}
        for name, seeds in folders.items()
    }
    return {"rule": RULE, "rounds": rounds, "networks": networks}


def step_milliseconds(folders: Mapping[str, Path], rounds: int) -> dict[str, float]:
    """Return what a typical step of each run costs, timed in turns, memory being kept as in the command."""
    keep_freed_memory()
    calls: dict[str, Callable[[], None]] = {}
    shares: dict[str, float] = {}
    for name, folder in folders.items():
        task = _timeable(folder)
        shallow = task.config.pretraining.steps
        shares[name] = min(1.0, shallow / task.config.trainer.max_steps)
        calls[name] = training_step(task, _resting(task), shallow)
        if shallow:
            calls[f"{name}, shallow"] = training_step(task, _resting(task))
    medians = {name: 1e3 * median(times) for name, times in alternate(calls, rounds).items()}

    def typical(name: str) -> float:
        share = shares[name]
        return (1 - share) * medians[name] + (share * medians[f"{name}, shallow"] if share else 0.0)

    return {name: round(typical(name), 2) for name in folders}


def _timeable(folder: Path) -> Any:
    """Return the task of a run; refuse one whose steps are not what is timed here."""
    task = opened(folder)
    trainer, regularization = task.config.trainer, task.config.regularization
    for name, value, plain in (
        ("trainer.precision", trainer.precision, "32-true"),
        ("trainer.accumulate_grad_batches", trainer.accumulate_grad_batches, 1),
        ("trainer.threads", trainer.threads or 1, 1),
        ("regularization.jacobian_weight", regularization.jacobian_weight, 0.0),
    ):
        if value != plain:
            raise SystemExit(f"{name} of {folder} is {value}, and steps are timed with {plain}; pass another run.")
    return task


def _resting(task: Any) -> Any:
    """Return the optimizer of a run with steps of no length, so that its network stays what it is."""
    optimizer = build_optimizer(task.model, task.config.optimizer)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    return optimizer


def below_peer(runs: Sequence[Mapping[str, Any]], peers: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Return in how many of the seeds that both have a network ends no higher than the explicit one."""
    last = {run["seed"]: run["val_loss"] for run in peers}
    pairs = [(run["val_loss"], last[run["seed"]]) for run in runs if run["seed"] in last]
    return sum(own <= other for own, other in pairs), len(pairs)


def table(content: dict[str, Any]) -> str:
    """Return the result as a Markdown table, a line a network."""
    networks = content["networks"]
    peers = networks[PEER]["runs"]

    def line(name: str, network: Mapping[str, Any]) -> list[str]:
        runs = network["runs"]
        ratio = (
            network["step_milliseconds"] * runs[0]["steps"] / (networks[PEER]["step_milliseconds"] * peers[0]["steps"])
        )
        below, pairs = below_peer(runs, peers)
        return [
            name,
            f"{runs[0]['parameters']:,}",
            ", ".join(f"{run['val_loss']:.3f}" for run in runs),
            "" if name == PEER else f"{below} of {pairs}",
            f"{mean(run['val_loss_with_memory'] for run in runs):.3f}",
            f"{mean(run['train_cpu_seconds'] for run in runs):.0f}",
            f"{network['step_milliseconds']:.0f}",
            f"{ratio:.2f}",
            f"{runs[0]['activation_bytes'] / 1e6:.1f}",
            f"{runs[0]['block_activation_bytes'] / 1e6:.1f}",
        ]

    costs = ["CPU, s", "step, ms", "ratio", "whole step, MB", "hidden layers, MB"]
    header = ["network", "parameters", "loss", "below the peer", "with memory", *costs]
    return markdown(header, (line(*item) for item in networks.items()), numbers=range(1, len(header)))


def report(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the rule and the table."""
    return RULE, table(content)


def named(run: str) -> tuple[str, Path]:
    """Return the name and the folder of NAME=RUN."""
    name, _, folder = run.partition("=")
    if not (name and folder):
        raise argparse.ArgumentTypeError(f"{run!r} names no run; pass NAME=RUN.")
    return name, Path(folder)


def main() -> None:
    parser = command.parser(__doc__, "tinyshakespeare", rounds=41)
    parser.add_argument("runs", type=named, nargs="+", metavar="NAME=RUN", help="runs of one name differ in their seed")
    options = parser.parse_args()
    folders: dict[str, list[Path]] = {}
    for name, folder in options.runs:
        folders.setdefault(name, []).append(folder)
    if PEER not in folders:
        parser.error(f"no run is named {PEER}, which all are compared with; pass {PEER}=RUN.")
    command.run(options, partial(measure, folders, options.rounds), table, report, peer=False)


if __name__ == "__main__":
    main()
