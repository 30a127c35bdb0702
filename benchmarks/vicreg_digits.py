"""What is each part of VICReg worth on moved digits? `poise train vicreg` with parts changed, three seeds each.

`python -m benchmarks.vicreg_digits [--seeds N] [--markdown] [--json FILE]` (about 12 minutes on one thread).
"""

from __future__ import annotations

import statistics
import tempfile
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.results import markdown
from poise.configs.vicreg import OtherConfig, VICRegConfig
from poise.tasks.run_folder import RunFolder
from poise.tasks.training import train
from poise.tasks.vicreg import CollapseWarning, VICRegTask

RULE = (
    "The recipe vicreg-digits (600 steps of 256 digits), one thing changed a line. Probe: logistic regression on the "
    "frozen encoder's standardised features, fitted to 4 clean placements of each of 1,297 training digits and tested "
    "on 2 of each of 500 others; few: the same with 10 labelled placements a class; nearest neighbours: 20, by cosine. "
    "Where there are two encoders, random, few and nearest neighbours are the first one's. Means over seeds, the range "
    "in brackets. Seconds: processor time of the training steps on one thread."
)
DEFAULT = VICRegConfig()
STEPS = DEFAULT.trainer.max_steps


def variants() -> dict[str, VICRegConfig]:
    """Return the settings by name."""
    model, loss, data = DEFAULT.model, DEFAULT.loss, DEFAULT.data
    deq = replace(DEFAULT, model=replace(model, kind="deq"))
    # As many samples as the default's.
    small = replace(DEFAULT, data=replace(data, batch_size=64), trainer=replace(DEFAULT.trainer, max_steps=4 * STEPS))
    return {
        "VICReg, dense encoder": DEFAULT,
        "VICReg, equilibrium encoder": deq,
        "the same, solved to 0.1": replace(
            deq, solver=replace(deq.solver, rtol=0.1), adjoint=replace(deq.adjoint, rtol=0.1)
        ),
        "Barlow Twins, dense encoder": replace(DEFAULT, loss=replace(loss, name="barlow")),
        "two dense encoders": replace(DEFAULT, other=OtherConfig(kind="separate")),
        "dense and equilibrium encoder": replace(DEFAULT, other=OtherConfig(kind="deq")),
        "without variance": replace(DEFAULT, loss=replace(loss, variance=0.0)),
        "without covariance": replace(DEFAULT, loss=replace(loss, covariance=0.0)),
        "without batch norm": replace(DEFAULT, model=replace(model, batch_norm=False)),
        "batches of 64, as many samples": small,
    }


def measure(seeds: int) -> dict[str, Any]:
    """Return one entry a variant and seed."""
    return {
        "rule": RULE,
        "runs": [_run(name, config, seed) for name, config in variants().items() for seed in range(seeds)],
    }


def _run(name: str, config: VICRegConfig, seed: int) -> dict[str, Any]:
    trainer = replace(config.trainer, accelerator="cpu", devices=1, threads=1)
    with tempfile.TemporaryDirectory() as path, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CollapseWarning)
        folder = RunFolder(Path(path))
        summary = train(VICRegTask, replace(config, seed=seed, trainer=trainer), folder, overwrite=True)
        analysis = folder.read_json(folder.analysis)
    called = [str(warning.message) for warning in caught if issubclass(warning.category, CollapseWarning)]
    return {
        "name": name,
        "seed": seed,
        "called": called[0] if called else None,
        "finding": analysis["finding"],
        "random_probe_accuracy": analysis["random_probe_accuracies"][0],
        "effective_rank": analysis["embedding"]["effective rank (RankMe)"],
        "deviation": analysis["embedding"]["mean standard deviation"],
        **{key: summary[key] for key in ("val_probe_accuracy", "val_knn_accuracy", "val_few_accuracy", "parameters")},
        "val_probe_accuracy_2": summary.get("val_probe_accuracy_2"),
        **{key: summary[key] for key in ("train_cpu_seconds", "mean_forward_evaluations", "mean_backward_evaluations")},
    }


def table(content: dict[str, Any]) -> str:
    """Return one line a variant."""
    rows = []
    for name in dict.fromkeys(run["name"] for run in content["runs"]):
        runs = [run for run in content["runs"] if run["name"] == name]
        finding = next((run["finding"] for run in runs if run["finding"]), None)
        rows.append(
            [
                name,
                _spread(runs, "random_probe_accuracy"),
                _spread(runs, "val_probe_accuracy") + _second(runs),
                _spread(runs, "val_few_accuracy"),
                _spread(runs, "val_knn_accuracy"),
                f"{_mean(runs, 'effective_rank'):.1f}",
                f"{_mean(runs, 'deviation'):.3f}",
                f"{_mean(runs, 'train_cpu_seconds'):.1f}",
                finding.partition(":")[0] if finding else "",
            ]
        )
    header = ["", "random", "probe", "few", "neighbours", "rank", "std", "CPU, s", "called"]
    return markdown(header, rows, numbers=range(1, 8))


def _mean(runs: list[dict[str, Any]], key: str) -> float:
    return statistics.mean(run[key] for run in runs)


def _spread(runs: list[dict[str, Any]], key: str) -> str:
    values = [run[key] for run in runs]
    return f"{statistics.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def _second(runs: list[dict[str, Any]]) -> str:
    return "" if runs[0]["val_probe_accuracy_2"] is None else f", {_spread(runs, 'val_probe_accuracy_2')}"


def main() -> None:
    parser = command.parser(__doc__, "vicreg_digits")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each")
    options = parser.parse_args()
    command.run(options, partial(measure, options.seeds), table, lambda content: (RULE, table(content)), peer=False)


if __name__ == "__main__":
    main()
