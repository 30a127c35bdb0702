"""A grid of cells, as a puzzle is drawn: each with a symbol, and as dark as it is certain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from poise.report.figure import Figure
from poise.report.markup import element, escape

FINE = 12  # columns above which cells are drawn small

Kind = Literal["given", "answer", "wrong", "block"]


@dataclass(frozen=True)
class Cell:
    """One cell of a grid.

    Args:
        text: what stands in it.
        share: how dark it is, from 0 to 1.
        kind: "given", "answer", "wrong", or "block", a cell that is no place.
    """

    text: str
    share: float = 0.0
    kind: Kind = "answer"


def grid_figure(
    rows: Sequence[Sequence[Cell]], *, title: str, caption: str = "", boxed: bool = False, notes: Sequence[str] = ()
) -> Figure:
    """Make a figure of a grid.

    Args:
        rows: of cells.
        title: the heading.
        caption: a sentence under the heading.
        boxed: whether a heavier line sets boxes of three by three apart.
        notes: a sentence each, beneath.
    """
    body = element("tbody", *(element("tr", *map(_cell, row)) for row in rows))
    fine = bool(rows) and len(rows[0]) > FINE
    classes = " ".join(["grid", *(["boxed"] if boxed else []), *(["fine"] if fine else [])])
    written = element("table", body, class_=classes)
    scrolling = element("div", written, class_="scroll", tabindex="0", role="region", aria_label=title)
    return Figure(title, scrolling, caption, tuple(notes))


def _cell(cell: Cell) -> str:
    return element("td", escape(cell.text), class_=cell.kind, style=f"--share:{cell.share:.2f}")
