"""Layers on the core: the equilibrium layer, its cells, what regularises them, and what is measured of them."""

from poise.nn.activation import activation_bytes
from poise.nn.cells import ConvCell, DenseCell, Injected, MultiscaleCell, TransformerCell, TrellisCell, inject
from poise.nn.diagnose import diagnose
from poise.nn.diagnosis import Diagnosis
from poise.nn.equilibrium import Equilibrium
from poise.nn.initialization import initialization_loss
from poise.nn.noise import dropout_mask
from poise.nn.normalization import normalize, remove_normalization
from poise.nn.regularization import jacobian_penalty, jittered, trajectory_correction
from poise.nn.segments import Segment
from poise.nn.spectral import SpectralRadius, spectral_radius
from poise.nn.trellis import TrellisLayer
from poise.nn.vocabulary import AdaptiveVocabulary, TiedVocabulary, build_vocabulary

__all__ = [
    "AdaptiveVocabulary",
    "ConvCell",
    "DenseCell",
    "Diagnosis",
    "Equilibrium",
    "Injected",
    "MultiscaleCell",
    "Segment",
    "SpectralRadius",
    "TiedVocabulary",
    "TransformerCell",
    "TrellisCell",
    "TrellisLayer",
    "activation_bytes",
    "build_vocabulary",
    "diagnose",
    "dropout_mask",
    "initialization_loss",
    "inject",
    "jacobian_penalty",
    "jittered",
    "normalize",
    "remove_normalization",
    "spectral_radius",
    "trajectory_correction",
]
