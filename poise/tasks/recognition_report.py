"""The page of a run that classifies, segments or does both, from what its folder holds. No torch."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from poise.report import Block, Page, Section, Series, Table, Tile, confusion_figure, line_chart, picture
from poise.tasks.report_parts import Recorded, column, costs, evaluation_counts, page, statuses, training_solves
from poise.tasks.run_folder import RunFolder

NETWORKS = {"deq": "An MDEQ", "explicit": "An explicit network of several resolutions", "resnet": "A residual network"}
DATA = {"digits": "handwritten digits", "scenes": "scenes of digits", "cifar10": "CIFAR-10", "mnist": "MNIST"}
MEASURES = {
    "accuracy": "accuracy",
    "top5_accuracy": "top-5 accuracy",
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
}


def build_page(folder: RunFolder) -> Page:
    """Return the report of a run."""
    run = Recorded.read(folder)
    sections = [
        Section("Pictures", _pictures(run.analysis)),
        Section("Learning", _learning(run.rows)),
        Section("Classes", _classes(run.analysis)),
        Section("Equilibrium", _equilibrium(run)),
        Section("Cost", costs(run.summary, "picture")),
    ]
    network = NETWORKS.get(run.settings.get("model", {}).get("kind", ""), "A network")
    path = str(run.settings.get("data", {}).get("path", ""))
    title = f"{network} on {DATA.get(path, PurePath(path).name)}"
    return page(run, title, _sentence, _tiles, sections, "picture")


def _sentence(run: Recorded) -> str:
    summary = run.summary
    pictures = "test" if summary["validated_on"] == "test" else "validation"
    found = []
    if "val_accuracy" in summary:
        named = f"{summary['val_accuracy']:.1%} of {summary['validation_samples']:,} {pictures} pictures"
        found.append(f"{named} are named rightly")
    if "val_mean_iou" in summary:
        whose = "their pixels" if found else f"the pixels of {summary['validation_samples']:,} {pictures} pictures"
        found.append(f"the mean IoU of {whose} is {summary['val_mean_iou']:.3f}")
    began = f" It began from the trunk of `{summary['init_from']}`." if summary.get("init_from") else ""
    sentence = f"{', and '.join(found)} after {summary['steps']:,} steps on {summary['training_samples']:,} pictures."
    return f"{sentence[0].upper()}{sentence[1:]}{began}\n\nData: {summary['data']}."


def _tiles(run: Recorded) -> list[Tile]:
    summary = run.summary
    on = summary["validated_on"] if summary["validated_on"] == "test" else "validation"
    return [
        Tile(label, summary[f"val_{name}"], note=f"{on} pictures")
        for name, label in MEASURES.items()
        if f"val_{name}" in summary and name != "top5_accuracy"
    ]


def _pictures(analysis: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    if sheet := analysis.get("scenes"):
        blocks.append(
            picture(
                base64.b64decode(sheet["png"]),
                title="Pixels and their classes",
                alt="rows of a picture, its labels, the prediction, and the pixels where the two differ",
                caption="From left: the picture, its labels, the prediction, and only those pixels that are predicted "
                "otherwise than labelled, in the colour predicted. A background and what has no label stay clear.",
                pixelated=True,
                key=[(name, colour) for name, colour in sheet["key"]],
            )
        )
    if sheet := analysis.get("pictures"):
        blocks.append(
            picture(
                base64.b64decode(sheet["png"]),
                title="Pictures and their class",
                alt=f"pictures in {len(sheet['rows'])} rows, one a class: {', '.join(sheet['rows'])}",
                caption=f"A row a class, from the top: {', '.join(sheet['rows'])}. In a red frame: named otherwise.",
                pixelated=True,
            )
        )
        if sheet["wrong"]:
            caption = "Those in a red frame."
            blocks.append(Table(("class", "in its row", "named"), [tuple(one) for one in sheet["wrong"]], caption))
    return blocks


def _learning(rows: Sequence[Mapping[str, float]]) -> list[Block]:
    if not rows:
        return []
    losses = [
        Series("class, one batch", *column(rows, "class_loss"), style="faint"),
        Series("pixels, one batch", *column(rows, "pixel_loss"), style="faint"),
        Series("validation, as weighted", *column(rows, "val_loss"), markers=True),
    ]
    blocks: list[Block] = [
        line_chart([one for one in losses if one.x], title="Loss", x_label="step", y_label="cross-entropy (nats)")
    ]
    measures = [Series(label, *column(rows, f"val_{name}"), markers=True) for name, label in MEASURES.items()]
    if shown := [one for one in measures if one.x]:
        blocks.append(line_chart(shown, title="Validation", x_label="step", y_label="share"))
    return blocks


def _classes(analysis: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    for kind, what in (("pixels", "pixels"), ("classes", "pictures")):
        found = analysis.get(kind)
        if not found:
            continue
        names, matrix = found["names"], found["matrix"]
        caption = f"Shares of each label's {what}; rows are labels, columns predictions."
        title = f"What {what} are taken for"
        scores = [tuple(score) for score in found["scores"]]
        blocks.append(Table(("class", what, "recall", "precision", "IoU"), scores, f"By class, {what}"))
        blocks.append(confusion_figure(names, matrix, title=title, caption=caption))
    return blocks


def _equilibrium(run: Recorded) -> list[Block]:
    analysis = run.analysis
    blocks: list[Block] = []
    if budgets := analysis.get("budgets"):
        evaluations = budgets["evaluations"]
        shown = [
            Series(MEASURES[name], evaluations, budgets[name], markers=True)
            for name in ("accuracy", "mean_iou")
            if name in budgets
        ]
        blocks.append(
            line_chart(
                shown,
                title="Quality against evaluations",
                x_label="evaluations of the cell",
                y_label="share",
                caption="Validation pictures (500 at most), each solve stopped after so many evaluations.",
            )
        )
        blocks.append(
            line_chart(
                [Series("median", evaluations, budgets["residual"], markers=True)],
                title="Residual against evaluations",
                x_label="evaluations of the cell",
                y_label="relative residual",
                log_y=True,
            )
        )
    blocks += [*evaluation_counts(analysis, "picture"), *training_solves(run.rows)]
    if maps := analysis.get("residual_maps"):
        blocks.append(
            picture(
                base64.b64decode(maps["png"]),
                title="Where the equilibrium converges slowly",
                alt="validation pictures, and beneath each the residual at every place, brighter where it is larger",
                caption=f"Beneath each picture, the relative residual of every place of the finest scale after "
                f"{maps['evaluations']} evaluations: black at {maps['low']:.0e}, white at {maps['high']:.0e}, by "
                "logarithm.",
                pixelated=True,
            )
        )
    if radius := analysis.get("spectral_radius"):
        blocks.append(
            f"The cell's Jacobian at the equilibria of {radius['pictures']} pictures has a spectral radius of "
            f"{radius['mean']:.2f} in the mean and {radius['largest']:.2f} at most."
        )
    return [*blocks, *statuses(run.summary)]
