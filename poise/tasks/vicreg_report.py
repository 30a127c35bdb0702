"""The page of a VICReg run, from what its folder holds; parts that are not there (yet) are left out. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from poise.report import Block, Page, Section, Series, Settings, Table, Tile, line_chart
from poise.tasks.report_parts import column, cost_tiles, costs, evaluation_blocks, page, statuses
from poise.tasks.run_folder import RunFolder

# What each term tends to: a hinge of closed columns is 0, and so are squared covariances of independent ones.
TERMS = ("invariance", "variance", "covariance", "on_diagonal", "off_diagonal")
PROBES = {"val_probe_accuracy": "linear", "val_knn_accuracy": "nearest neighbours", "val_few_accuracy": "few labels"}


def build_page(folder: RunFolder) -> Page:
    """Return the report of a run."""
    _, settings = folder.read_config()
    summary = folder.read_json(folder.summary)
    analysis = folder.read_json(folder.analysis)
    rows = folder.read_metrics()
    sections = [
        Section("Features", _features(rows, analysis)),
        Section("Loss", _loss(rows)),
        Section("Embeddings", _embeddings(rows, analysis)),
        Section("Equilibrium", statuses(summary)),
        Section("Cost", costs(summary, "sample")),
        Section("Evaluation", evaluation_blocks(folder.read_json(folder.evaluation), "sample")),
        Section("Settings", [Settings(settings)]),
    ]
    kind = "An equilibrium encoder" if settings.get("model", {}).get("kind") == "deq" else "A dense encoder"
    loss = "Barlow Twins" if settings.get("loss", {}).get("name") == "barlow" else "VICReg"
    title = f"{kind} trained by {loss} on moved digits"
    return page(title, "vicreg", settings, summary, _sentence(summary, analysis), _tiles(summary, analysis), sections)


def _sentence(summary: Mapping[str, Any], analysis: Mapping[str, Any]) -> str:
    if not summary:
        return ""
    found = (
        f"A linear probe of the features names {summary['val_probe_accuracy']:.1%} of the test digits after "
        f"{summary['steps']:,} steps without a label"
    )
    if "random_probe_accuracy" in analysis:
        found += f"; of the same encoder with random weights, {analysis['random_probe_accuracy']:.1%}"
    verdict = analysis.get("finding") or "The embeddings show no sign of a collapse."
    return f"{found}. {verdict[0].upper()}{verdict[1:]}"


def _tiles(summary: Mapping[str, Any], analysis: Mapping[str, Any]) -> list[Tile]:
    if not summary:
        return []
    random = analysis.get("random_probe_accuracy")
    note = "" if random is None else f"random weights: {random:.3f}"
    return [
        Tile("linear probe", summary["val_probe_accuracy"], note=note),
        Tile("nearest neighbours", summary["val_knn_accuracy"], note="20, by cosine"),
        Tile("few labels", summary["val_few_accuracy"], note="a linear probe"),
        *cost_tiles(summary),
    ]


def _features(rows: Sequence[Mapping[str, float]], analysis: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    series = [Series(label, *column(rows, name), markers=True) for name, label in PROBES.items()]
    if any(one.x for one in series):
        blocks.append(line_chart(series, title="Probe accuracy", x_label="step", y_label="share of test samples"))
    places = analysis.get("map")
    if places:
        clouds = []
        for label, name in enumerate(places["class_names"]):
            own = [place for place, of in zip(places["places"], places["labels"], strict=True) if of == label]
            clouds.append(Series(name, [x for x, _ in own], [y for _, y in own], style="points"))
        blocks.append(
            line_chart(
                clouds,
                title="Test features on two axes",
                x_label="first principal axis",
                y_label="second principal axis",
                caption="One point a sample, one colour a class, as far as colours go.",
            )
        )
    return blocks


def _loss(rows: Sequence[Mapping[str, float]]) -> list[Block]:
    total = Series("total", *column(rows, "loss"))
    if not total.x:
        return []
    terms = [Series(name.replace("_", " "), *column(rows, name)) for name in TERMS]
    shown = [term for term in terms if term.x]
    return [
        line_chart([total], title="Loss", x_label="step", y_label="weighted sum"),
        line_chart(
            shown,
            title="Its terms",
            x_label="step",
            y_label="unweighted",
            log_y=True,
            caption="Variance starts at most at 0.99, of constant embeddings; each term's floor is 0.",
        ),
    ]


def _embeddings(rows: Sequence[Mapping[str, float]], analysis: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    deviation = Series("mean over dimensions", *column(rows, "embedding_std"))
    if deviation.x:
        blocks.append(
            line_chart([deviation], title="Standard deviation", x_label="step", y_label="of embeddings", from_zero=True)
        )
    if "spectrum" in analysis:
        values = analysis["spectrum"]
        blocks.append(
            line_chart(
                [Series("variance along each axis", list(range(1, len(values) + 1)), values)],
                title="Spectrum",
                x_label="principal axis",
                y_label="variance",
                log_y=True,
                caption="Where it falls to nothing, dimensions repeat one another.",
            )
        )
    if "embedding" in analysis:
        blocks.append(Table(("measure", "value"), list(analysis["embedding"].items())))
    return blocks
