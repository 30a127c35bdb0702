"""Layers on the core: the equilibrium layer, its cells, what regularises them, and what is measured of them."""

from poise.nn.activation import activation_bytes
from poise.nn.cells import Injected, TransformerCell, inject
from poise.nn.equilibrium import Equilibrium
from poise.nn.regularization import jacobian_penalty, jittered, trajectory_correction
from poise.nn.spectral import SpectralRadius, spectral_radius

__all__ = [
    "Equilibrium",
    "Injected",
    "SpectralRadius",
    "TransformerCell",
    "activation_bytes",
    "inject",
    "jacobian_penalty",
    "jittered",
    "spectral_radius",
    "trajectory_correction",
]
