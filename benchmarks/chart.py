"""How does the bench look? One SVG of `results/solvers.json` for the README, in light and in dark.

`python -m benchmarks.chart [--svg FILE]`. Every bar is a time over that of torchdeq's fastest solver on the same case.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import FOLDER, read
from benchmarks.solver_tables import Duel, duels
from poise.report.axes import Axis, linear_axis
from poise.report.markup import element, escape

WIDTH, MARGIN, NAMES = 840, 20, 100  # pixels: the whole, round it, and the cells' names at the left
GAP, ROW, BAR = 48, 30, 14  # between the panels, of a row, of a bar
TOP, BOTTOM = 92, 46
LARGEST = 3.0  # a bar beyond is cut, and its number says so

STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1d2127; }
.title { font-weight: 600; font-size: 15px; }
.muted { fill: #5c636d; font-size: 12px; }
.value { font-size: 12px; font-variant-numeric: tabular-nums; }
.on { fill: #ffffff; }
.fastest { fill: #2b62c4; }
.default { fill: none; stroke: #c2570c; stroke-width: 2px; }
.grid { stroke: #dcdcd5; }
.peer { stroke: #5c636d; stroke-width: 1.5px; stroke-dasharray: 4 3; }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e4df; }
  .muted { fill: #a0a6af; }
  .on { fill: #16181c; }
  .fastest { fill: #7fabff; }
  .default { stroke: #f2a05c; }
  .grid { stroke: #33373e; }
  .peer { stroke: #a0a6af; }
}
"""


def chart(content: dict[str, Any]) -> str:
    """Return the SVG: forward to 1e-6 at the left, whole training steps at the right, one row a cell."""
    found = [duel for duel in duels([*content["solves"], *content["steps"]]) if duel.ratio is not None]
    forward = [duel for duel in found if duel.direction == "forward" and duel.tolerance == 1e-6]
    steps = [duel for duel in found if duel.direction == "step"]
    cells = list(dict.fromkeys(duel.cell for duel in (*forward, *steps)))
    values = [value for duel in (*forward, *steps) for value in (duel.ratio, duel.default_ratio) if value is not None]
    axis = linear_axis([0.0, 1.0, *(min(value, LARGEST) for value in values)], zero=True)
    height = TOP + ROW * len(cells) + BOTTOM
    width = (WIDTH - 2 * MARGIN - NAMES - GAP) / 2
    left = MARGIN + NAMES
    names = [_text(cell, left - 12, _middle(row) + 4.5, anchor="end") for row, cell in enumerate(cells)]
    panels = [
        _panel("To a true residual of 1e-6", forward, cells, axis, left, width),
        _panel("A training step, gradients within 1e-4", steps, cells, axis, left + width + GAP, width),
    ]
    words = _described(forward, "to 1e-6") + " " + _described(steps, "a training step")
    drawn = element(
        "svg",
        element("title", "Time of poise over that of torchdeq"),
        element("desc", escape(words)),
        element("style", STYLE),
        _legend(left),
        *names,
        *panels,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height}",
        width=str(WIDTH),
        height=str(height),
        role="img",
    )
    return drawn + "\n"


def _legend(left: float) -> str:
    entries = [
        element("rect", x=f"{left}", y="15", width="22", height="10", rx="2", class_="fastest"),
        _text("poise's fastest solver", left + 30, 24.5),
        element("circle", cx=f"{left + 195}", cy="20", r="5", class_="default"),
        _text("poise's default", left + 208, 24.5),
        element("line", x1=f"{left + 330}", x2=f"{left + 330}", y1="11", y2="29", class_="peer"),
        _text("torchdeq's fastest, at its best setting for the case", left + 340, 24.5),
    ]
    return element("g", *entries)


def _panel(title: str, found: Sequence[Duel], cells: Sequence[str], axis: Axis, left: float, width: float) -> str:
    def at(value: float) -> float:
        return left + width * axis.position(min(value, LARGEST))

    bottom = TOP + ROW * len(cells)
    ticks = [
        part
        for tick in axis.ticks
        for x in [left + width * tick.position]
        for part in (
            element("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=f"{TOP}", y2=f"{bottom}", class_="grid"),
            _text(tick.label, x, bottom + 18, anchor="middle", class_="muted"),
        )
    ]
    marks = []
    for duel in found:
        if duel.ratio is None:
            continue
        middle = _middle(cells.index(duel.cell))
        end = at(duel.ratio)
        marks.append(
            element(
                "rect",
                x=f"{left:.1f}",
                y=f"{middle - BAR / 2:.1f}",
                width=f"{end - left:.1f}",
                height=f"{BAR}",
                rx="2",
                class_="fastest",
            )
        )
        inside = end - left > 44
        label = end + 6
        if duel.default_ratio is not None:
            x = at(duel.default_ratio)
            marks.append(element("circle", cx=f"{x:.1f}", cy=f"{middle:.1f}", r="5", class_="default"))
            if label - 8 < x < label + 36:  # the number gives way to the circle
                label = x + 9
        number = f"{duel.ratio:.2f}"
        if inside:
            marks.append(_text(number, left + 6, middle + 4.5, class_="value on"))
        else:
            marks.append(_text(number, label, middle + 4.5, class_="value"))
    one = f"{at(1.0):.1f}"
    peer = element("line", x1=one, x2=one, y1=f"{TOP - 6}", y2=f"{bottom}", class_="peer")
    caption = _text("time, torchdeq's fastest = 1", left + width, bottom + 38, anchor="end", class_="muted")
    return element("g", _text(title, left, TOP - 22, class_="title"), *ticks, *marks, peer, caption)


def _middle(row: int) -> float:
    return TOP + ROW * (row + 0.5)


def _text(words: str, x: float, y: float, *, anchor: str | None = None, class_: str | None = None) -> str:
    return element("text", escape(words), x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=class_)


def _described(found: Sequence[Duel], what: str) -> str:
    told = [
        f"{duel.cell} {duel.ratio:.2f}" + ("" if duel.default_ratio is None else f", default {duel.default_ratio:.2f}")
        for duel in found
    ]
    return f"Time {what}, torchdeq's fastest being 1: {'; '.join(told)}."


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="a result elsewhere")
    parser.add_argument("--svg", type=Path, default=FOLDER / "solvers.svg", help="where the figure is written")
    options = parser.parse_args()
    content = read("solvers", options.json)
    if content is None:
        sys.exit("results/solvers.json has not been measured; run make bench-solvers.")
    options.svg.write_text(chart(content), encoding="utf-8")


if __name__ == "__main__":
    main()
