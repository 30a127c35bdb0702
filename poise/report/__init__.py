"""Reports: one self-contained HTML page, without script or network, from plain numbers and words.

Charts are inline SVG whose data stand in a table beside them; the standard library is all that this package imports.
"""

from poise.report.bars import bar_chart, histogram
from poise.report.confusion import confusion_figure
from poise.report.figure import Figure, picture
from poise.report.formatting import Unit, format_value
from poise.report.grid import Cell, grid_figure
from poise.report.lines import Series, line_chart
from poise.report.page import Block, Page, Sample, Section, Theme, Tile, render, write
from poise.report.settings import Settings
from poise.report.statuses import Statuses
from poise.report.table import Table

__all__ = [
    "Block",
    "Cell",
    "Figure",
    "Page",
    "Sample",
    "Section",
    "Series",
    "Settings",
    "Statuses",
    "Table",
    "Theme",
    "Tile",
    "Unit",
    "bar_chart",
    "confusion_figure",
    "format_value",
    "grid_figure",
    "histogram",
    "line_chart",
    "picture",
    "render",
    "write",
]
