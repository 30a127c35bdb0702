"""Cells: the maps whose fixed points equilibrium layers find."""

from poise.nn.cells.convolutional import ConvCell
from poise.nn.cells.dense import DenseCell
from poise.nn.cells.injected import Injected, inject
from poise.nn.cells.multiscale import MultiscaleCell
from poise.nn.cells.reasoning import GridCell, SudokuCell
from poise.nn.cells.transformer import TransformerCell
from poise.nn.cells.trellis import TrellisCell

__all__ = [
    "ConvCell",
    "DenseCell",
    "GridCell",
    "Injected",
    "MultiscaleCell",
    "SudokuCell",
    "TransformerCell",
    "TrellisCell",
    "inject",
]
