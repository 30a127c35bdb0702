"""The page of a language run, from what its folder holds; parts that are not there (yet) are left out. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from statistics import median
from typing import Any

from poise.report import (
    Block,
    Figure,
    Page,
    Sample,
    Section,
    Series,
    Settings,
    Tile,
    histogram,
    line_chart,
)
from poise.tasks.report_parts import column, cost_tiles, costs, evaluation_blocks, page, statuses, training_solves
from poise.tasks.run_folder import RunFolder


def build_page(folder: RunFolder) -> Page:
    """Return the report of a run."""
    _, settings = folder.read_config()
    summary = folder.read_json(folder.summary)
    analysis = folder.read_json(folder.analysis)
    rows = folder.read_metrics()
    sections = [
        Section("Learning", _learning(rows, summary)),
        Section("Equilibrium", _equilibrium(rows, analysis, summary)),
        Section("Cost", _cost(analysis, summary)),
        Section("Text", [Sample(**text) for text in analysis.get("texts", [])]),
        Section("Evaluation", evaluation_blocks(folder.read_json(folder.evaluation), "window")),
        Section("Settings", [Settings(settings)]),
    ]
    return page(_title(settings), "language", settings, summary, _sentence(summary), _tiles(summary), sections)


def _title(settings: Mapping[str, Any]) -> str:
    kind = settings.get("model", {}).get("kind")
    network = "An explicit Transformer" if kind == "explicit" else "A DEQ-Transformer"
    source = str(settings.get("data", {}).get("path"))
    return f"{network} on {'the documentation of Python' if source == 'embedded' else PurePath(source).name}"


def _sentence(summary: Mapping[str, Any]) -> str:
    if not summary:
        return ""
    return (
        f"Validation loss {summary['val_loss']:.4f} nats a token over the whole validation split (tokens: "
        f"`{summary['tokenizer']}`, {summary['vocab_size']:,} of them) after {summary['steps']:,} steps."
    )


def _tiles(summary: Mapping[str, Any]) -> list[Tile]:
    if not summary:
        return []
    return [
        Tile("validation loss", summary["val_loss"], note="nats a token"),
        Tile("perplexity", summary["val_perplexity"], note="validation, a token"),
        *cost_tiles(summary),
    ]


def _learning(rows: Sequence[Mapping[str, float]], summary: Mapping[str, Any]) -> list[Block]:
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


def _equilibrium(
    rows: Sequence[Mapping[str, float]], analysis: Mapping[str, Any], summary: Mapping[str, Any]
) -> list[Block]:
    blocks = training_solves(rows)
    if "residuals" in analysis:
        blocks.append(_residual_curves(analysis["residuals"]))
    if "evaluations" in analysis:
        blocks.append(
            histogram(
                {float(steps): number for steps, number in analysis["evaluations"].items()},
                title="Evaluations a window",
                x_label="evaluations of the cell",
                y_label="validation windows",
            )
        )
    return [*blocks, *statuses(summary)]


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


def _cost(analysis: Mapping[str, Any], summary: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    memory = analysis.get("memory")
    if memory:
        series = [Series(name, memory["depths"], memory[name], markers=True) for name in ("equilibrium", "unrolled")]
        blocks.append(
            line_chart(
                series,
                title="Held for the backward, one window",
                x_label="effective depth (evaluations of the cell)",
                y_label="bytes",
                y_unit="bytes",
                from_zero=True,
            )
        )
    return [*blocks, *costs(summary, "window")]
