"""A figure, and the frame of axes, ticks and legend that the charts share.

The plot is an SVG that stretches to the width there is; the words stand around it as text of one size, so that a figure
reads as well on a phone as on a wide screen.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from poise.report.axes import Axis, Tick
from poise.report.markup import element, escape, inline
from poise.report.table import Table, render_table

# The plot's own units, across and upwards; strokes keep their width whatever these are stretched to.
EXTENT = 1000

TONES = ("blue", "orange", "green", "purple", "rose", "brown")


@dataclass(frozen=True)
class Figure:
    """A chart or a picture with its words and its numbers.

    Args:
        title: its heading.
        body: markup that this package made; it is written as it stands.
        caption: a sentence under the heading; "" gives none.
        notes: what the figure leaves out, one sentence each.
        table: the numbers shown, folded away beneath.
    """

    title: str
    body: str
    caption: str = ""
    notes: tuple[str, ...] = ()
    table: Table | None = None


@dataclass(frozen=True)
class LegendEntry:
    """One line of a legend.

    Args:
        name: as in the text.
        classes: the classes of the mark's colour and shape.
    """

    name: str
    classes: str


def picture(
    png: bytes,
    *,
    title: str,
    alt: str,
    caption: str = "",
    pixelated: bool = False,
    key: Sequence[tuple[str, str]] = (),
) -> Figure:
    """Make a figure of a PNG image, held in the page itself.

    Args:
        png: the file's bytes.
        title: the heading.
        alt: what the picture shows, for those who cannot see it.
        caption: a sentence under the heading.
        pixelated: whether enlarged pixels stay sharp squares (small images) or are smoothed.
        key: what colours of the image mean, each a name and a colour as "#2b62c4".

    Raises:
        ValueError: the bytes are not a PNG file, or a colour is not written so.
    """
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"the picture {title!r} starts with {png[:8]!r}, which is no PNG file; encode it as PNG.")
    source = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    classes = ' class="pixelated"' if pixelated else ""
    body = f'<img src="{source}" alt="{escape(alt)}"{classes}>'
    return Figure(title, _colour_key(key) + body, caption)


def _colour_key(key: Sequence[tuple[str, str]]) -> str:
    for name, colour in key:
        if not re.fullmatch("#[0-9a-f]{6}", colour):
            raise ValueError(f"the colour of {name!r} is {colour!r}; write it as '#2b62c4'.")
    items = (
        element("li", element("span", class_="swatch", style=f"background:{colour}"), inline(name))
        for name, colour in key
    )
    return element("ul", *items, class_="legend") if key else ""


def empty(title: str, caption: str, notes: tuple[str, ...] = ()) -> Figure:
    """Make the figure that stands where nothing can be drawn.

    Args:
        title: the heading.
        caption: a sentence under the heading.
        notes: why, where there is more to say.
    """
    return Figure(title, element("p", "no data", class_="no-data"), caption, notes)


def plot(
    marks: Sequence[str],
    *,
    title: str,
    description: str,
    x: Axis,
    y: Axis,
    x_label: str,
    y_label: str,
    legend: Sequence[LegendEntry] = (),
) -> str:
    """Write marks in a frame of two axes.

    Args:
        marks: SVG elements in the plot's units (0 to `EXTENT`, y downwards).
        title, description: the plot's text alternative.
        x, y: the axes.
        x_label, y_label: the axes' names, with units.
        legend: written above the plot, where it covers nothing.
    """
    grid = "".join(
        f'<line x1="0" x2="{EXTENT}" y1="{c}" y2="{c}" class="{"axis" if tick.position == 0 else "grid"}"/>'
        for tick in y.ticks
        for c in [coordinate(1 - tick.position)]
    )
    base = "" if any(tick.position == 0 for tick in y.ticks) else f'<path d="M0 {EXTENT}h{EXTENT}" class="axis"/>'
    stubs = "".join(
        f'<line x1="{c}" x2="{c}" y1="{EXTENT}" y2="{EXTENT + 20}" class="axis"/>'
        for tick in x.ticks
        for c in [coordinate(tick.position)]
    )
    return render_legend(legend) + element(
        "div",
        element("p", inline(y_label), class_="y-label", aria_hidden="true"),
        element("div", *(_tick(t, f"top:{_percent(1 - t.position)}") for t in y.ticks), class_="y-ticks", **_HIDDEN),
        svg([grid, base, stubs, *marks], title=title, description=description),
        element("div", *(_tick(t, _across(t)) for t in x.ticks), class_="x-ticks", **_HIDDEN),
        element("p", inline(x_label), class_="x-label", aria_hidden="true"),
        class_="chart",
    )


def svg(marks: Sequence[str], *, title: str, description: str, style: str | None = None) -> str:
    """Write an SVG that stretches to its box, with its text alternative.

    Args:
        marks: SVG elements in the plot's units.
        title, description: the text alternative.
        style: declarations of its own.
    """
    return element(
        "svg",
        element("title", escape(title)),
        element("desc", escape(description)),
        *marks,
        viewBox=f"0 0 {EXTENT} {EXTENT}",
        preserveAspectRatio="none",
        role="img",
        style=style,
    )


def render_legend(entries: Sequence[LegendEntry]) -> str:
    """Write a legend; one entry or none needs no legend.

    Args:
        entries: in their order.
    """
    if len(entries) < 2:
        return ""
    items = (
        element("li", f'<svg viewBox="0 0 22 10" class="{entry.classes}" {_KEY}</svg>', inline(entry.name))
        for entry in entries
    )
    return element("ul", *items, class_="legend", **_HIDDEN)


def render_figure(figure: Figure) -> str:
    """Write a figure as markup.

    Args:
        figure: what to write.
    """
    caption = element("p", inline(figure.caption)) if figure.caption else ""
    notes = (element("p", inline(note), class_="note") for note in figure.notes)
    # Every figure has the same four parts, so that those of figures side by side can stand level.
    data = element("details", element("summary", "Data"), render_table(figure.table)) if figure.table else "<div></div>"
    return element(
        "figure",
        element("figcaption", element("h3", inline(figure.title)), caption),
        element("div", figure.body, class_="body"),
        element("div", *notes, class_="notes"),
        data,
    )


def coordinate(position: float) -> str:
    """Write a position between 0 and 1 in the plot's units, as short as a tenth of a unit allows.

    Args:
        position: 0 to 1.
    """
    written = f"{EXTENT * position:.1f}".removesuffix(".0")
    return "0" if written == "-0" else written


_HIDDEN: dict[str, str | None] = {"aria_hidden": "true"}
_KEY = (
    '><path class="stroke" d="M1 5h20"/><path class="dot" d="M11 5h0"/><rect class="fill" y="1" width="22" height="8"/>'
)


def _tick(tick: Tick, style: str) -> str:
    # A true minus sign is as wide as a digit; a raised hyphen is hardly seen.
    label = escape(tick.label.replace("-", "\N{MINUS SIGN}"))
    return element("span", f"10<sup>{label}</sup>" if tick.power else label, style=style)


def _percent(share: float) -> str:
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"


def _across(tick: Tick) -> str:
    """Place a label under its tick; a long one at the right end ends where the chart does."""
    place = _percent(tick.position)
    half = 0.31 * len(tick.label)
    return f"left:min({place}, 100% + 1rem - {half:.2f}em)" if half > 1.3 and tick.position > 0.8 else f"left:{place}"
