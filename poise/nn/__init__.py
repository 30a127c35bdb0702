"""Layers on the core: the equilibrium layer, its cells, and what is measured of them."""

from poise.nn.activation import activation_bytes
from poise.nn.cells import Injected, TransformerCell, inject
from poise.nn.equilibrium import Equilibrium

__all__ = ["Equilibrium", "Injected", "TransformerCell", "activation_bytes", "inject"]
