"""What do multiscale DEQs reach, beside the explicit networks that a user would otherwise pick?

`python -m benchmarks.mdeq_runs RUNS [--sets NAME ...] [--markdown] [--json FILE]` trains the recipes below in a folder,
goes on where a run was stopped, and evaluates them (hours on one thread; a set alone, with `--sets`, leaves the others
in the file as they are). POISE_DATA names the folder of the data.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.results import markdown
from benchmarks.runs import carry_out, trained
from poise.tasks.run_folder import RunFolder

RULE = (
    "Every run is a recipe of that name on one thread; the networks of a set have about equal parameters and the same "
    "views, epochs and optimizer. CIFAR-10: the first 10,000 training pictures of a JPEG copy (quality 75), so that "
    "accuracies are not quite comparable with published ones; tested on all 10,000 test pictures; three seeds. CamVid: "
    "160x120, mean IoU over 11 classes of its test pictures. MNIST: all 60,000, tested on 10,000. Scenes: digits on "
    "48x48, two heads on one trunk beside each head alone; test pictures. At 6 and 12: the first seed's solves stopped "
    "there. Seconds: processor time of the training steps."
)


@dataclass(frozen=True)
class Entry:
    """A network of a set: its recipe, and what the table calls it."""

    task: str
    recipe: str
    name: str
    seeds: tuple[int, ...] = (0,)
    budgets: tuple[int, ...] = ()  # evaluations at which the first seed's test is stopped as well


SETS: dict[str, tuple[Entry, ...]] = {
    "cifar10": (
        Entry("classify", "cifar10-deq", "MDEQ", (0, 1, 2), (6, 12)),
        Entry("classify", "cifar10-resnet", "ResNet-18, width 8", (0, 1, 2)),
    ),
    "camvid": (
        Entry("segment", "camvid-deq", "MDEQ", budgets=(6, 12)),
        Entry("segment", "camvid-explicit", "explicit peer"),
    ),
    "mnist": (Entry("classify", "mnist-deq", "MDEQ"),),
    "scenes": (
        Entry("multitask", "multitask-scenes", "MDEQ, both heads"),
        Entry("classify", "classify-scenes", "MDEQ, one head"),
        Entry("segment", "segment-scenes", "MDEQ, one head"),
    ),
}
KEPT = (
    "parameters",
    "steps",
    "training_samples",
    "train_seconds",
    "train_cpu_seconds",
    "mean_forward_evaluations",
    "mean_backward_evaluations",
)
MEASURES = ("accuracy", "mean_iou")


def measure(runs: Path, sets: list[str], known: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of every set; `known`: those of an earlier result, kept where a set is not asked for."""
    found = {
        name: [_run(entry, seed, runs) for entry in SETS[name] for seed in entry.seeds]
        if name in sets
        else known.get(name, [])
        for name in SETS
    }
    return {"rule": RULE, "sets": found}


def _run(entry: Entry, seed: int, runs: Path) -> dict[str, Any]:
    folder = trained(entry.task, entry.recipe, RunFolder(runs / f"{entry.recipe}-{seed}"), "--seed", str(seed))
    summary = folder.read_json(folder.summary)
    budgets = entry.budgets if seed == entry.seeds[0] else ()
    # Where there is nothing else to validate on, the run ended with this very measure of the whole test.
    tested = summary["validated_on"] == "test"
    evaluation = {} if tested else _evaluated(folder)
    _, settings = folder.read_config()
    return {
        "recipe": entry.recipe,
        "name": entry.name,
        "task": entry.task,
        "seed": seed,
        "epochs": summary["steps"] * settings["data"]["batch_size"] / summary["training_samples"],
        **{key: summary[key] for key in KEPT},
        **_quality(summary if tested else evaluation),
        "budgets": {str(budget): _quality(_evaluated(folder, budget)) for budget in budgets},
        "mean_evaluations": summary["mean_validation_evaluations"] if tested else evaluation["mean_evaluations"],
        "statuses": summary["validation_statuses"] if tested else evaluation["statuses"],
    }


def _evaluated(folder: RunFolder, budget: int | None = None) -> dict[str, Any]:
    flags = [] if budget is None else ["--solver.rtol", "null", "--solver.max_steps", str(budget)]
    carry_out(["evaluate", str(folder.path), *flags])
    return folder.read_json(folder.evaluation)


def _quality(evaluation: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in evaluation.items() if name.startswith(("val_", "test_", "multi_scale_"))}


def table(content: dict[str, Any]) -> str:
    """Return one line a network and measure."""
    rows = []
    for name, entries in SETS.items():
        for entry in entries:
            runs = [run for run in content["sets"][name] if run["recipe"] == entry.recipe]
            if not runs:
                continue
            for measure in MEASURES:
                key = next((key for key in (f"test_{measure}", f"val_{measure}") if key in runs[0]), None)
                if key is None:
                    continue
                budgets = [_mean([runs[0]["budgets"][str(budget)][key]]) for budget in entry.budgets]
                rows.append(
                    [
                        f"{name}, {measure.replace('_iou', ' IoU')}",
                        f"{entry.name}, {runs[0]['parameters']:,} parameters",
                        _spread([run[key] for run in runs]),
                        " and ".join(budgets),
                        f"{runs[0]['epochs']:.0f}",
                        f"{statistics.mean(run['train_cpu_seconds'] for run in runs):,.0f}",
                    ]
                )
    header = ["set, measure", "network", "test", "at 6 and 12", "epochs", "CPU, s"]
    return markdown(header, rows, numbers=range(2, 6))


def _mean(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f}"


def _spread(values: list[float]) -> str:
    return _mean(values) if len(values) == 1 else f"{_mean(values)} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    parser = command.parser(__doc__, "mdeq_runs")
    parser.add_argument("runs", type=Path, help="folder of the runs")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS), help="these sets only")
    options = parser.parse_args()
    known = json.loads(options.json.read_text())["sets"] if options.json.is_file() else {}
    measured = partial(measure, options.runs, options.sets, known)
    command.run(options, measured, table, lambda content: (RULE, table(content)), peer=False)


if __name__ == "__main__":
    main()
