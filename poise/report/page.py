"""The page: one HTML file that needs nothing else, in light and dark, on a phone and on a wide screen."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from poise.report.figure import Figure, render_figure
from poise.report.formatting import Unit, check_unit, format_value
from poise.report.markup import element, escape, inline
from poise.report.settings import Settings, render_settings
from poise.report.statuses import Statuses, render_statuses
from poise.report.table import Table, render_table

Theme = Literal["light", "dark"]

# The browser itself refuses whatever is not in the file, scripts included.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Tile:
    """A key figure.

    Args:
        label: what it is.
        value: a number or a short text; None shows as an en dash.
        unit: how a number is written (`format_value`).
        note: a few words beneath: the unit of measure, what it is compared with.

    Raises:
        ValueError: the unit is unknown.
    """

    label: str
    value: float | str | None
    unit: Unit = "number"
    note: str = ""

    def __post_init__(self) -> None:
        check_unit(self.unit)


@dataclass(frozen=True)
class Sample:
    """A piece of text that is shown letter for letter.

    Args:
        text: as a model wrote it; control characters are made visible.
        label: a line above it ("temperature 0.8").
        prompt: what the model was given; it stands before the text, set apart.
    """

    text: str
    label: str = ""
    prompt: str = ""


Block = str | Figure | Table | Sample | Statuses | Settings
"""What a section is made of; a plain string is prose: a blank line parts paragraphs, backticks set code."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it.

    Args:
        heading: its name.
        blocks: in their order; neighbouring figures, and neighbouring samples, stand side by side where there is room.
    """

    heading: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A report.

    Args:
        title: what was run.
        sections: in their order.
        eyebrow: a line above the title: task, recipe, seed.
        summary: a sentence or two beneath it, as prose.
        tiles: the key figures.
        footer: a line at the end: versions, the command that made the run.
    """

    title: str
    sections: Sequence[Section] = ()
    eyebrow: str = ""
    summary: str = ""
    tiles: Sequence[Tile] = ()
    footer: str = ""


def render(page: Page, *, theme: Theme | None = None) -> str:
    """Write a page as one HTML document, the same for the same input.

    Args:
        page: what to write.
        theme: "light" or "dark" whatever the reader's system prefers; none given follows the system.

    Raises:
        TypeError: a section holds something that is no block.
    """
    style = resources.files("poise.report").joinpath("page.css").read_text(encoding="utf-8")
    head = (
        '<meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"{element('title', escape(page.title))}<style>\n{style}</style>"
    )
    header = element(
        "header",
        element("p", inline(page.eyebrow), class_="eyebrow") if page.eyebrow else "",
        element("h1", inline(page.title)),
        element("div", _prose(page.summary), class_="summary") if page.summary else "",
        _tiles(page.tiles),
    )
    footer = element("footer", element("p", inline(page.footer))) if page.footer else ""
    body = element("main", header, *map(_section, page.sections), footer)
    return "<!doctype html>\n" + element(
        "html", element("head", head), "\n", element("body", body), lang="en", data_theme=theme
    )


def write(page: Page, path: str | os.PathLike[str], *, theme: Theme | None = None) -> None:
    """Write a page to a file, whole or not at all: whatever happens, a report that was there before is kept.

    Args:
        page: what to write.
        path: the file; its folder must exist.
        theme: as in `render`.

    Raises:
        FileNotFoundError: the folder does not exist.
        OSError: the file cannot be written (disk full, no permission).
        TypeError: a section holds something that is no block.
    """
    target = Path(path)
    document = render(page, theme=theme).encode("utf-8")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(target.parent)!r} does not exist; make it or give another path.")
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with open(beside, "xb") as file:
            file.write(document)
            file.flush()
            # Without this a power cut could leave the new name on an empty file.
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise


def _tiles(tiles: Sequence[Tile]) -> str:
    if not tiles:
        return ""
    # As many columns as make rows of one length; the style sheet takes fewer where the page is narrow.
    rows = -(-len(tiles) // 6)
    return element("dl", *map(_tile, tiles), class_="tiles", style=f"--columns:{-(-len(tiles) // rows)}")


def _tile(tile: Tile) -> str:
    value = element("dd", escape(format_value(tile.value, tile.unit)), class_="value")
    return element("div", element("dt", inline(tile.label)), value, element("dd", inline(tile.note), class_="note"))


def _section(section: Section) -> str:
    parts = []
    for kind, group in groupby(section.blocks, key=type):
        if kind not in _RENDERERS:
            known = ", ".join(sorted(known.__name__ for known in _RENDERERS))
            raise TypeError(
                f"section {section.heading!r} holds a {kind.__name__}, which is no block; give one of {known}."
            )
        written = [_RENDERERS[kind](block) for block in group]
        if kind in _SIDE_BY_SIDE:
            parts.append(
                element("div", *written, class_=f"{_SIDE_BY_SIDE[kind]}{' lone' if len(written) == 1 else ''}")
            )
        else:
            parts += written
    return element("section", element("h2", inline(section.heading)), *parts)


def _prose(text: str) -> str:
    paragraphs = (" ".join(part.split()) for part in text.replace("\r\n", "\n").split("\n\n"))
    return "".join(element("p", inline(paragraph)) for paragraph in paragraphs if paragraph)


def _prose_block(text: str) -> str:
    return element("div", _prose(text), class_="prose")


def _sample(sample: Sample) -> str:
    label = element("figcaption", inline(sample.label)) if sample.label else ""
    prompt = element("b", escape(sample.prompt)) if sample.prompt else ""
    return element("figure", label, element("pre", prompt, escape(sample.text)), class_="sample")


_RENDERERS: dict[type, Callable[[Any], str]] = {
    str: _prose_block,
    Figure: render_figure,
    Table: render_table,
    Sample: _sample,
    Statuses: render_statuses,
    Settings: render_settings,
}
_SIDE_BY_SIDE: dict[type, str] = {Figure: "figures", Sample: "samples"}
