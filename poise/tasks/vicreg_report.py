"""The page of a VICReg run, from what its folder holds; parts that are not there (yet) are left out. No torch."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from poise.report import Block, Page, Section, Series, Table, Tile, line_chart, picture
from poise.tasks.report_parts import Recorded, column, costs, page, statuses, training_solves
from poise.tasks.run_folder import RunFolder

# What each term tends to: a hinge of closed columns is 0, and so are squared covariances of independent ones.
TERMS = ("invariance", "variance", "covariance", "on_diagonal", "off_diagonal")
PROBES = {
    "val_probe_accuracy": "linear",
    "val_knn_accuracy": "nearest neighbours",
    "val_few_accuracy": "few labels",
    "val_probe_accuracy_2": "linear, second branch",
}
ENCODERS = {
    "dense": "A dense encoder",
    "deq": "An equilibrium encoder",
    "conv": "A convolutional encoder",
    "deq-conv": "A convolutional equilibrium encoder",
    "resnet": "A residual network",
}


def build_page(folder: RunFolder) -> Page:
    """Return the report of a run."""
    run = Recorded.read(folder)
    sections = [
        Section("Features", _features(run)),
        Section("Neighbours", _neighbours(run.analysis)),
        Section("Loss", _loss(run)),
        Section("Embeddings", _embeddings(run)),
        Section("Equilibrium", [*training_solves(run.rows), *statuses(run.summary)]),
        Section("Cost", costs(run.summary, "sample")),
    ]
    kind = ENCODERS.get(run.settings.get("model", {}).get("kind", ""), "An encoder")
    loss = "Barlow Twins" if run.settings.get("loss", {}).get("name") == "barlow" else "VICReg"
    data = run.settings.get("data", {}).get("path", "")
    title = f"{kind} trained by {loss} on {'moved digits' if data == 'digits' else data}"
    return page(run, title, _sentence, _tiles, sections, "sample")


def _sentence(run: Recorded) -> str:
    summary, analysis = run.summary, run.analysis
    found = (
        f"A linear probe of the features names {summary['val_probe_accuracy']:.1%} of the test samples after "
        f"{summary['steps']:,} steps on {summary['training_samples']:,} samples without a label"
    )
    if "random_probe_accuracy" in analysis:
        found += f"; of the same encoder with random weights, {analysis['random_probe_accuracy']:.1%}"
    verdict = analysis.get("finding") or "The embeddings show no sign of a collapse."
    return f"{found}. {verdict[0].upper()}{verdict[1:]}\n\nData: {summary['data']}."


def _tiles(run: Recorded) -> list[Tile]:
    summary, random = run.summary, run.analysis.get("random_probe_accuracy")
    note = "" if random is None else f"random weights: {random:.3f}"
    return [
        Tile("linear probe", summary["val_probe_accuracy"], note=note),
        Tile("nearest neighbours", summary["val_knn_accuracy"], note="20, by cosine"),
        Tile("few labels", summary["val_few_accuracy"], note="a linear probe of them"),
    ]


def _features(run: Recorded) -> list[Block]:
    blocks: list[Block] = []
    series = [Series(label, *column(run.rows, name), markers=True) for name, label in PROBES.items()]
    if shown := [one for one in series if one.x]:
        blocks.append(line_chart(shown, title="Probe accuracy", x_label="step", y_label="share of test samples"))
    online = Series("online", *column(run.rows, "online_probe_accuracy"))
    if online.x:
        blocks.append(
            line_chart(
                [online],
                title="Online probe",
                x_label="step",
                y_label="share of the next batch's views",
                caption="Ridge regression on the features of the batches before; it moves no weight of the encoder.",
            )
        )
    places = run.analysis.get("map")
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


def _neighbours(analysis: Mapping[str, Any]) -> list[Block]:
    sheet = analysis.get("neighbours")
    if not sheet:
        return []
    alt = "a row a class: a test picture, then the training pictures whose features are nearest to its own"
    caption = "A test picture of each class, then the training pictures of nearest features; another class is paler."
    return [picture(base64.b64decode(sheet), title="Nearest neighbours", alt=alt, caption=caption, pixelated=True)]


def _loss(run: Recorded) -> list[Block]:
    total = Series("total", *column(run.rows, "loss"))
    if not total.x:
        return []
    terms = [Series(name.replace("_", " "), *column(run.rows, name)) for name in TERMS]
    shown = [term for term in terms if term.x]
    expected = run.analysis.get("floors", {}).get("covariance")
    if expected and shown:
        ends = [shown[0].x[0], shown[0].x[-1]]
        shown.append(Series("covariance of independent columns", ends, [expected, expected]))
    return [
        line_chart([total], title="Loss", x_label="step", y_label="weighted sum"),
        line_chart(
            shown,
            title="Its terms",
            x_label="step",
            y_label="unweighted",
            log_y=True,
            caption="Each term's floor is 0. Constant embeddings have a variance term of 0.99; independent columns of "
            "standard deviation 1 show covariances in a batch by chance, as many as the flat line says.",
        ),
    ]


def _embeddings(run: Recorded) -> list[Block]:
    blocks: list[Block] = []
    deviation = Series("mean over dimensions", *column(run.rows, "embedding_std"))
    if deviation.x:
        blocks.append(
            line_chart([deviation], title="Standard deviation", x_label="step", y_label="of embeddings", from_zero=True)
        )
    if "spectrum" in run.analysis:
        values = run.analysis["spectrum"]
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
    if "embedding" in run.analysis:
        blocks.append(Table(("measure", "value"), list(run.analysis["embedding"].items())))
    return blocks
