"""Parametrized weights (weight norm, spectral norm, any other) that are computed once a solve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

Weights = tuple[tuple[ParametrizationList, Tensor], ...]  # and what each of them computed


def computed_weights(cell: nn.Module) -> Weights:
    """Compute every parametrized tensor of a cell once, with a graph where gradients are recorded."""
    found = (module for module in cell.modules() if isinstance(module, ParametrizationList))
    return tuple((parametrization, parametrization()) for parametrization in found)


def measured_weights(cell: nn.Module) -> Weights:
    """Compute them as they stand: spectral normalisation does not move its vectors, also in training mode."""
    moving = [part for module in cell.modules() if isinstance(module, ParametrizationList) for part in module.modules()]
    before = [part.training for part in moving]
    try:
        for part in moving:
            part.training = False
        return computed_weights(cell)
    finally:
        for part, training in zip(moving, before, strict=True):
            part.training = training


@dataclass(eq=False)
class _Constant:
    """What stands in for a parametrization's computation, and what stood there before."""

    value: Tensor
    before: _Constant | None
    held: bool = True

    def __call__(self) -> Tensor:
        return self.value


@contextmanager
def held(weights: Weights) -> Iterator[None]:
    """Let parametrized tensors be what was computed, as long as the context lasts.

    Contexts may nest (an equilibrium within a cell) and, in threads that share a module, end in any order.
    """
    constants = []
    for parametrization, weight in weights:
        constants.append(_Constant(weight, vars(parametrization).get("forward")))
        vars(parametrization)["forward"] = constants[-1]
    try:
        yield
    finally:
        for (parametrization, _), constant in zip(weights, constants, strict=True):
            constant.held = False
            top = vars(parametrization).pop("forward", None)
            while top is not None and not top.held:
                top = top.before
            if top is not None:
                vars(parametrization)["forward"] = top


@dataclass(frozen=True)
class PinnedCell:
    """A cell whose parametrized weights are those of the beginning of the solve, whenever it is evaluated.

    Computed anew they would cost as much as they do at every evaluation, and spectral normalisation in training mode
    moves its vectors each time, so that no two evaluations would be of one cell. An evaluation that the backward makes,
    for second derivatives or after a checkpoint, comes when a context around the solve has long ended
    (`torch.nn.utils.parametrize.cached`); this one goes with the cell.
    """

    cell: nn.Module
    weights: Weights

    def __call__(self, z: Any, context: Any) -> Any:
        """Evaluate the cell."""
        with held(self.weights):
            return self.cell(z, context)

    @property
    def __name__(self) -> str:
        return type(self.cell).__name__


def pinned(cell: nn.Module, weights: Weights) -> Callable[..., Any]:
    """Return the cell with these weights; the cell itself where it has none."""
    return PinnedCell(cell, weights) if weights else cell
