"""The page of a language run, from what its folder holds; parts that are not there (yet) are left out. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from statistics import median
from typing import Any

from poise.report import Block, Figure, Page, Sample, Section, Series, Tile, line_chart
from poise.tasks.report_parts import Recorded, column, costs, evaluation_counts, page, statuses, training_solves
from poise.tasks.run_folder import RunFolder


def build_page(folder: RunFolder) -> Page:
    """Return the report of a run."""
    run = Recorded.read(folder)
    sections = [
        Section("Learning", _learning(run.rows)),
        Section("Equilibrium", _equilibrium(run)),
        Section("Cost", [*_memory(run.analysis), *costs(run.summary, "window")]),
        Section("Text", [Sample(**text) for text in run.analysis.get("texts", [])]),
    ]
    return page(run, _title(run.settings), _sentence, _tiles, sections, "window")


NETWORKS = {
    ("deq", "transformer"): "A DEQ-Transformer",
    ("deq", "trellis"): "A DEQ-TrellisNet",
    ("explicit", "transformer"): "An explicit Transformer",
    ("explicit", "trellis"): "An explicit TrellisNet",
}


def _title(settings: Mapping[str, Any]) -> str:
    model = settings.get("model", {})
    network = NETWORKS[model.get("kind", "deq"), model.get("cell", "transformer")]
    source = str(settings.get("data", {}).get("path"))
    return f"{network} on {'the documentation of Python' if source == 'embedded' else PurePath(source).name}"


def _sentence(run: Recorded) -> str:
    summary = run.summary
    return (
        f"Validation loss {summary['val_loss']:.4f} nats a token over the whole validation split (tokens: "
        f"`{summary['tokenizer']}`, {summary['vocab_size']:,} of them) after {summary['steps']:,} steps."
    )


def _tiles(run: Recorded) -> list[Tile]:
    return [
        Tile("validation loss", run.summary["val_loss"], note="nats a token"),
        Tile("perplexity", run.summary["val_perplexity"], note="validation, a token"),
    ]


def _learning(rows: Sequence[Mapping[str, float]]) -> list[Block]:
    if not rows:
        return []
    loss = line_chart(
        [
            Series("training, one batch", *column(rows, "loss"), style="faint"),
            Series("validation, whole split", *column(rows, "val_loss"), markers=True),
        ],
        title="Loss",
        x_label="step",
        y_label="nats a token",
    )
    rate = line_chart(
        [Series("learning rate", *column(rows, "lr"))], title="Learning rate", x_label="step", y_label="learning rate"
    )
    return [loss, rate]


def _equilibrium(run: Recorded) -> list[Block]:
    blocks = training_solves(run.rows)
    if "residuals" in run.analysis:
        blocks.append(_residual_curves(run.analysis["residuals"]))
    return [*blocks, *evaluation_counts(run.analysis, "window"), *statuses(run.summary)]


def _residual_curves(residuals: Mapping[str, Sequence[Sequence[float | None]]]) -> Figure:
    """Draw each window's curve faintly and the median over windows of each solver."""
    series = []
    for name, curves in residuals.items():
        numbers = list(range(1, max(map(len, curves), default=0) + 1))
        if name != "Picard":
            series += [Series("single windows", numbers, curve, style="faint") for curve in curves]
        at_step = [[c for c in column if c is not None and math.isfinite(c)] for column in zip(*curves, strict=True)]
        middle = [median(values) if values else None for values in at_step]
        series.append(Series(f"{name}, median", numbers, middle))
    return line_chart(
        series,
        title="Residual against evaluations",
        x_label="evaluations of the cell",
        y_label="relative residual",
        log_y=True,
        caption="Windows of the validation text, solved to the floor of the precision.",
    )


def _memory(analysis: Mapping[str, Any]) -> list[Block]:
    memory = analysis.get("memory")
    if not memory:
        return []
    return [
        line_chart(
            [Series(name, memory["depths"], memory[name], markers=True) for name in ("equilibrium", "unrolled")],
            title="Held for the backward, one window",
            x_label="effective depth (evaluations of the cell)",
            y_label="bytes",
            y_unit="bytes",
            from_zero=True,
        )
    ]
