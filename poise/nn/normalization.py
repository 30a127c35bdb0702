"""Weight and spectral normalisation of all linear and convolution layers of a module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from poise.nn.spectral_bound import SpectralBound

Kind = Literal["weight", "spectral"]

LAYERS = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip


def normalize(module: nn.Module, kind: Kind, *, bound: float | None = None, **options: Any) -> nn.Module:
    """Normalise the weight of every linear and convolution layer of a module, in place, and return the module.

    `kind`: `"weight"` separates the length of each row of the weight from its direction (Salimans and Kingma 2016;
    options: `dim`); `"spectral"` divides the weight by its largest singular value, estimated by a power iteration that
    moves on in training mode and begins with numbers from PyTorch's generator (Miyato et al. 2018; options:
    `n_power_iterations`, `eps`, `dim`; a convolution's kernel counts as a matrix of its output channels, so its norm as
    an operator may exceed 1). That leaves a cell such as tanh(W z + x) just short of a strict contraction; with
    `bound`, a number below 1, such a cell contracts: weights whose largest singular value is above it are scaled down
    to it, and others are left as they are (Gouk et al. 2021; options: `n_power_iterations`).

    An `Equilibrium` computes normalised weights once a solve. Normalise before the optimiser is made, since the
    parameters change, and before loading weights that were saved normalised. A module that holds such layers is copied
    and saved by `state_dict`, not pickled (a rule of `torch.nn.utils.parametrize`).

    Raises ValueError where there is nothing to normalise, where a layer is normalised already, and where two layers
    share a weight, which normalising one of them would part.
    """
    if kind not in ("weight", "spectral"):
        raise ValueError(f"normalize(kind={kind!r}) is unknown; pass 'weight' or 'spectral'.")
    if bound is not None and kind != "spectral":
        raise ValueError(f"normalize(kind={kind!r}, bound={bound}) bounds no singular value; pass kind='spectral'.")
    layers = list(_layers(module))
    if not layers:
        raise ValueError(f"{type(module).__name__} holds no linear or convolution layer; normalise one that does.")
    owners: dict[int, str] = {}
    for name, layer in layers:
        if parametrize.is_parametrized(layer, "weight"):
            raise ValueError(f"the weight of {name} is parametrized already; call remove_normalization first.")
        if id(layer.weight) in owners:
            raise ValueError(
                f"{owners[id(layer.weight)]} and {name} share one weight, which normalising would part; untie them."
            )
        owners[id(layer.weight)] = name
    for _, layer in layers:
        if kind == "weight":
            parametrize.register_parametrization(layer, "weight", WeightNorm(**options), unsafe=True)
        elif bound is None:
            parametrizations.spectral_norm(layer, "weight", **options)
        else:
            made = SpectralBound(layer.weight, bound, **options).train(layer.training)  # type: ignore[arg-type]
            parametrize.register_parametrization(layer, "weight", made)
    return module


class WeightNorm(nn.Module):
    """weight = g v / |v|, |v| by the slices of `dim` (None or -1: of the whole), to be registered as a parametrization.

    As `torch.nn.utils.parametrizations.weight_norm`, with its names and shapes in a state dict, but for its fused
    kernel, whose second derivative is wrong.
    """

    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        """Return the weight."""
        return v * (g / self._length(v))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lengths and the directions of a weight."""
        return self._length(weight), weight

    def _length(self, v: Tensor) -> Tensor:
        if self.dim in (None, -1):
            return torch.linalg.vector_norm(v)
        others = [place for place in range(v.dim()) if place != self.dim]
        return torch.linalg.vector_norm(v, dim=others, keepdim=True)


def remove_normalization(module: nn.Module) -> nn.Module:
    """Turn the normalised weights of a module back into plain parameters with their present values, in place."""
    with torch.no_grad():
        for _, layer in _layers(module):
            if parametrize.is_parametrized(layer, "weight"):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return module


def _layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name or "the module", layer) for name, layer in module.named_modules() if isinstance(layer, LAYERS))
