"""How often each class was taken for each other one, as a table whose cells are as dark as they are frequent."""

from __future__ import annotations

from collections.abc import Sequence

from poise.report.figure import Figure
from poise.report.formatting import format_value
from poise.report.markup import element, escape, inline
from poise.report.table import Table

MOST_CLASSES = 20  # that a table shows; of more, the most frequent confusions are listed


def confusion_figure(
    names: Sequence[str], counts: Sequence[Sequence[int | float]], *, title: str, caption: str = ""
) -> Figure | Table:
    """Make a figure of a confusion matrix, or with many classes a table of its most frequent confusions.

    Args:
        names: of the classes.
        counts: a row for each class as labelled, a column for each as predicted.
        title: the heading.
        caption: a sentence under the heading.

    Raises:
        ValueError: the counts are not one a pair of classes.
    """
    if len(counts) != len(names) or any(len(row) != len(names) for row in counts):
        raise ValueError(f"the counts are not {len(names)} rows of {len(names)}; give one for each pair of classes.")
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    if len(names) > MOST_CLASSES:
        pairs = [
            (names[i], names[j], counts[i][j], shares[i][j])
            for i in range(len(names))
            for j in range(len(names))
            if i != j and counts[i][j]
        ]
        pairs.sort(key=lambda pair: (-pair[2], pair[0], pair[1]))
        rows = pairs[:MOST_CLASSES]
        units: list[str] = ["number", "number", "number", "percent"]
        return Table(("labelled", "predicted", "times", "of its label"), rows, title, units)  # type: ignore[arg-type]
    head = element("tr", element("th", "labelled", scope="col"), *(_name(name, "col") for name in names))
    body = (
        element("tr", _name(name, "row"), *(_cell(share) for share in row))
        for name, row in zip(names, shares, strict=True)
    )
    written = element("table", element("thead", head), element("tbody", *body), class_="confusion")
    scrolling = element("div", written, class_="scroll", tabindex="0", role="region", aria_label=title)
    table = Table(("labelled", *names), [(name, *row) for name, row in zip(names, counts, strict=True)])
    return Figure(title, scrolling, caption, table=table)


def _name(name: str, scope: str) -> str:
    return element("th", inline(name), scope=scope)


def _cell(share: float) -> str:
    text = "" if share < 0.005 else escape(format_value(share, "percent"))
    return element("td", text, style=f"--share:{share:.3f}", class_="number")
