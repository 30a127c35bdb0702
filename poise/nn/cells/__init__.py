"""Cells: the maps whose fixed points equilibrium layers find."""

from poise.nn.cells.injected import Injected, inject
from poise.nn.cells.transformer import TransformerCell

__all__ = ["Injected", "TransformerCell", "inject"]
