"""What the pages of all tasks show alike: columns of measures, costs, statuses, evaluations, and the page around them.

No torch: a page is made from what the folder of a run holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from poise.report import (
    Block,
    Figure,
    Page,
    Section,
    Series,
    Settings,
    Statuses,
    Table,
    Tile,
    format_value,
    histogram,
    line_chart,
)
from poise.tasks.peers import compared
from poise.tasks.run_folder import RunFolder


@dataclass(frozen=True)
class Recorded:
    """What the folder of a run holds for its page; what is not there (yet) is empty."""

    task: str
    settings: Mapping[str, Any]
    rows: Sequence[Mapping[str, float]]
    summary: Mapping[str, Any]
    analysis: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    peers: Sequence[Mapping[str, Any]]

    @classmethod
    def read(cls, folder: RunFolder) -> Self:
        """Return it from the files."""
        summary, analysis, evaluation, peers = (
            folder.read_json(path) for path in (folder.summary, folder.analysis, folder.evaluation, folder.peers)
        )
        task, settings = folder.read_config()
        return cls(task, settings, folder.read_metrics(), summary, analysis, evaluation, peers.get("peers", []))


def column(rows: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    """Return the steps at which a measure was written, and its values."""
    found = [(row["step"], row[name]) for row in rows if name in row]
    return [step for step, _ in found], [value for _, value in found]


def page(
    run: Recorded,
    title: str,
    sentence: Callable[[Recorded], str],
    tiles: Callable[[Recorded], list[Tile]],
    sections: Sequence[Section],
    sample: str,
) -> Page:
    """Return the page of a run: its own sections, those that have a block, then evaluation and settings.

    `sentence`, `tiles`: what is said at the top of a finished run, before what it cost. `sample`: what one is called.
    """
    recipe = run.settings.get("recipe")
    ends = [
        Section("Beside other runs", _beside(run)),
        Section("Evaluation", evaluation_blocks(run.evaluation, sample)),
        Section("Settings", [Settings(run.settings)]),
    ]
    return Page(
        title=title,
        eyebrow=f"{run.task}, {f'recipe {recipe}' if recipe else 'no recipe'}, seed {run.settings.get('seed')}",
        summary=sentence(run) if run.summary else "This run is not finished: figures show what it has recorded so far.",
        tiles=[*tiles(run), *cost_tiles(run.summary)] if run.summary else [],
        sections=[section for section in (*sections, *ends) if section.blocks],
        footer=", ".join(f"{name} {version}" for name, version in run.summary.get("versions", {}).items()),
    )


def _beside(run: Recorded) -> list[Block]:
    if not (run.peers and run.summary):
        return []
    return [Table(*compared(run.summary, run.peers), "Quality and costs of this run and of those it is compared with.")]


def cost_tiles(summary: Mapping[str, Any]) -> list[Tile]:
    """Return the tiles of what a finished run cost."""
    tiles = [
        Tile("parameters", summary["parameters"]),
        Tile("training", summary["train_seconds"], "seconds", "training steps alone"),
        Tile("held for backward", summary["activation_bytes"], "bytes", "a training batch, up to the loss"),
    ]
    if summary["mean_forward_evaluations"]:
        backward = f"{summary['mean_backward_evaluations']:.1f} backward"
        tiles.append(Tile("evaluations a solve", summary["mean_forward_evaluations"], note=backward))
    return tiles


def training_solves(rows: Sequence[Mapping[str, float]]) -> list[Block]:
    """Return what was measured of the equilibria during training: where solves stop, and how far the cell contracts."""
    blocks: list[Block] = []
    steps, residuals = column(rows, "residual")
    if steps:
        blocks.append(
            line_chart(
                [Series("training residual", steps, residuals)],
                title="Residual in training",
                x_label="step",
                y_label="relative residual",
                log_y=True,
                caption=f"Where training solves stop; {residuals[0]:.1e} at step {steps[0]:.0f}, before any learning.",
            )
        )
    penalty = Series("|J|² / d", *column(rows, "jacobian_penalty"))
    if penalty.x:
        blocks.append(line_chart([penalty], title="Jacobian penalty", x_label="step", y_label="a batch, unweighted"))
    radius = Series("largest", *column(rows, "val_spectral_radius"), markers=True)
    if radius.x:
        blocks.append(
            line_chart(
                [radius],
                title="Spectral radius",
                x_label="step",
                y_label="validation samples, largest",
                from_zero=True,
                caption="Of the cell's Jacobian at the equilibrium; below 1 plain iteration converges there.",
            )
        )
    return blocks


def evaluation_counts(analysis: Mapping[str, Any], sample: str) -> list[Block]:
    """Return how many samples of validation took how many evaluations; `sample`: what one is called."""
    counts = analysis.get("evaluations")
    if not counts:
        return []
    return [
        histogram(
            {float(steps): number for steps, number in counts.items()},
            title=f"Evaluations a {sample}",
            x_label="evaluations of the cell",
            y_label=f"validation {sample}s",
        )
    ]


def statuses(summary: Mapping[str, Any]) -> list[Block]:
    """Return how the solves of a run ended."""
    blocks: list[Block] = []
    counts = {
        "training": summary.get("statuses"),
        "backward": summary.get("backward_statuses"),
        "validation": summary.get("validation_statuses"),
    }
    known = {name: count for name, count in counts.items() if count}
    if known:
        blocks.append(Statuses(known))
    if known and summary.get("fixed_budget"):
        blocks.append("Training spends a fixed budget of evaluations and tests nothing: `BUDGET` is no failure there.")
    if known and (first := summary.get("pretraining_steps")):
        blocks.append(f"The first {first:,} steps unrolled the cell a few times, as asked, and are not counted here.")
    return blocks


def costs(summary: Mapping[str, Any], sample: str) -> list[Block]:
    """Return the table of costs; `sample`: what a sample is called."""
    if not summary:
        return []
    names = {
        "train_seconds": ("training steps, wall time", "seconds"),
        "train_cpu_seconds": ("training steps, CPU time", "seconds"),
        "activation_bytes": ("held for backward by a batch, up to the loss", "bytes"),
        "block_activation_bytes": ("held by its hidden layers alone", "bytes"),
        "mean_forward_evaluations": ("evaluations a solve, training", "number"),
        "mean_backward_evaluations": ("evaluations a solve, backward", "number"),
        "mean_validation_evaluations": (f"evaluations a solve, validation (slowest {sample} of a batch)", "number"),
    }
    cells = [
        (label, format_value(summary[name], unit))  # type: ignore[arg-type]
        for name, (label, unit) in names.items()
        if name in summary
    ]
    return [Table(("cost", "value"), cells)]


def evaluation_blocks(evaluation: Mapping[str, Any], sample: str) -> list[Block]:
    """Return what the latest `poise evaluate` found; `sample`: what a sample is called."""
    names = {"mean_evaluations": f"evaluations a solve (slowest {sample} of a batch)"}
    cells = [
        (names.get(name, name.replace("_", " ")), value)
        for name, value in evaluation.items()
        if isinstance(value, int | float)
    ]
    if not cells:
        return []
    solver = evaluation.get("solver")
    blocks: list[Block] = [Table(("measure", "value"), cells, "By the latest `poise evaluate`.")]
    if dial := evaluation.get("dial"):
        blocks.append(_dial(dial, sample))
    if evaluation.get("statuses"):
        blocks.append(Statuses({"evaluation": evaluation["statuses"]}))
    return [*blocks, Settings({"solver": solver})] if solver else blocks


def _dial(rows: Sequence[Mapping[str, Any]], sample: str) -> Figure:
    """Draw quality against evaluations: where all samples stop alike, and where each stops by itself."""
    ways = {"a budget for all": True, f"a residual for each {sample}": False}
    series = []
    for name, budget in ways.items():
        chosen = [row for row in rows if (row["rtol"] is None) is budget]
        x, y = ([row[axis] for row in chosen] for axis in ("evaluations", "perplexity"))
        series.append(Series(name, x, y, markers=True))
    return line_chart(
        series,
        title="Perplexity against evaluations",
        x_label=f"evaluations of the cell, mean over {sample}s",
        y_label="perplexity",
        caption="On a part of the validation text, by the latest `poise evaluate`.",
    )
