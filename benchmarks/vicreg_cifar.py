"""What are labels worth after VICReg on CIFAR-10? A residual network and an equilibrium encoder of as many parameters.

`python -m benchmarks.vicreg_cifar RUNS [--markdown] [--json FILE]` trains the recipes vicreg-cifar10-resnet and -deq in
the folder RUNS, goes on where a run was stopped, and evaluates both (about an hour on one thread).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.results import markdown
from benchmarks.runs import carry_out, trained
from poise.configs.fields import from_dict
from poise.configs.vicreg import VICRegConfig
from poise.tasks.run_folder import RunFolder
from poise.tasks.vicreg import VICRegTask

RULE = (
    "CIFAR-10 in a JPEG copy (quality 75), so that accuracies are not quite comparable with published ones; all 50,000 "
    "training pictures 18 times over, batches of 256, one seed; tested on all 10,000. Linear probe: logistic "
    "regression on the frozen features with all training labels. 10 and 100 labels: so many a class, the mean of 5 "
    "draws for the probe; fine-tuned and from scratch: the whole encoder with a linear head, 600 steps of AdamW with "
    "cuts and flips, begun at the trained weights or at random ones, the first draw. Seconds: processor time on one "
    "thread."
)
NAMES = {"resnet": "residual network", "deq": "equilibrium encoder"}
KEPT = ("parameters", "steps", "training_samples", "train_seconds", "train_cpu_seconds", "mean_forward_evaluations")


def measure(runs: Path) -> dict[str, Any]:
    """Return one entry a network."""
    return {"rule": RULE, "runs": [_run(name, RunFolder(runs / name)) for name in NAMES]}


def _run(name: str, folder: RunFolder) -> dict[str, Any]:
    out = str(folder.path)
    trained("vicreg", f"vicreg-cifar10-{name}", folder)
    if not folder.evaluation.is_file():
        carry_out(["evaluate", out])
    summary, evaluation = folder.read_json(folder.summary), folder.read_json(folder.evaluation)
    task, values = folder.read_config()
    assert task == VICRegTask.task_name
    encoder = VICRegTask.open(from_dict(VICRegConfig, values), folder).model.encoder
    return {
        "name": name,
        "encoder_parameters": sum(weight.numel() for weight in encoder.parameters()),
        "random_probe_accuracy": folder.read_json(folder.analysis)["random_probe_accuracy"],
        **{key: summary[key] for key in KEPT},
        **{key: value for key, value in evaluation.items() if "accuracy" in key or "labels" in key},
        "statuses": evaluation["statuses"],
        "mean_evaluations": evaluation["mean_evaluations"],
    }


def table(content: dict[str, Any]) -> str:
    """Return one line a network and number of labels."""
    rows = []
    for run in content["runs"]:
        for labels in ("all", 10, 100):
            few = labels != "all"
            rows.append(
                [
                    f"{NAMES[run['name']]}, {run['encoder_parameters']:,} parameters",
                    "all 50,000" if not few else f"{labels} a class",
                    f"{run[f'probe_{labels}_labels' if few else 'val_probe_accuracy']:.3f}",
                    f"{run[f'fine_tuned_{labels}_labels']:.3f}" if few else "",
                    f"{run[f'from_scratch_{labels}_labels']:.3f}" if few else "",
                    "" if few else f"{run['random_probe_accuracy']:.3f}",
                    "" if few else f"{run['train_cpu_seconds']:,.0f}",
                ]
            )
    header = ["encoder", "labels", "linear probe", "fine-tuned", "from scratch", "probe, random weights", "CPU, s"]
    return markdown(header, rows, numbers=range(2, 7))


def main() -> None:
    parser = command.parser(__doc__, "vicreg_cifar")
    parser.add_argument("runs", type=Path, help="folder of the two runs")
    options = parser.parse_args()
    command.run(options, partial(measure, options.runs), table, lambda content: (RULE, table(content)), peer=False)


if __name__ == "__main__":
    main()
