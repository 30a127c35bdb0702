"""Tables of plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from poise.report.formatting import Unit, check_unit, format_value, is_number
from poise.report.markup import element, escape, inline


@dataclass(frozen=True)
class Table:
    """A table: a header and rows of plain values.

    Args:
        columns: the headers.
        rows: one value a column each: numbers, text, truth values or None.
        caption: a line above it; "" gives none.
        units: the unit of each column's numbers (`format_value`); none given means plain numbers throughout.

    Raises:
        ValueError: a row or `units` has another length than `columns`, or a unit is unknown.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""
    units: Sequence[Unit] = ()

    def __post_init__(self) -> None:
        width = len(self.columns)
        for place, row in enumerate(self.rows):
            if len(row) != width:
                raise ValueError(f"row {place} of the table has {len(row)} values; give {width}, one a column.")
        if self.units and len(self.units) != width:
            raise ValueError(f"the table has {len(self.units)} units; give {width}, one a column, or none.")
        for unit in self.units:
            check_unit(unit)


def render_table(table: Table) -> str:
    """Write a table as markup; it scrolls by itself where the page is narrower.

    Args:
        table: what to write.
    """
    width = len(table.columns)
    plain: list[Unit] = ["number"] * width
    units = table.units or plain
    align = [_alignment([row[c] for row in table.rows]) for c in range(width)]
    head = (element("th", inline(table.columns[c]), scope="col", class_=align[c]) for c in range(width))
    rows = (
        element("tr", *(element("td", escape(format_value(row[c], units[c])), class_=align[c]) for c in range(width)))
        for row in table.rows
    )
    caption = element("caption", inline(table.caption)) if table.caption else ""
    written = element("table", caption, element("thead", element("tr", *head)), element("tbody", *rows))
    # A region that scrolls must be reachable by the keyboard.
    return element("div", written, class_="scroll", tabindex="0", role="region", aria_label=table.caption or "table")


def _alignment(values: Sequence[object]) -> str | None:
    """Align a column as numbers where it holds nothing else."""
    present = [value for value in values if value is not None]
    return "number" if present and all(map(is_number, present)) else None
