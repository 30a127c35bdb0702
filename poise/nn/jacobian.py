"""The Jacobian of a cell at a state, reached by vector-Jacobian products of one evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from poise.fixed_point.packed import PackedCell, asks_for_context, check_context
from poise.fixed_point.state import Layout
from poise.fixed_point.transforms import refuse_inference
from poise.nn.parametrized import measured_weights, pinned


@dataclass(frozen=True)
class Linearisation:
    """One recorded evaluation, seen as real numbers (batch, 1, features): complex numbers are pairs."""

    z: Tensor
    image: Tensor
    valid: Tensor | None  # 1 where an entry counts, 0 elsewhere

    def product(self, u: Tensor, *, create_graph: bool = False) -> Tensor:
        """Return J^T u for every sample; J is restricted to the valid entries."""
        if self.valid is not None:
            u = u * self.valid
        moved: Tensor | None = None
        if self.image.requires_grad:
            (moved,) = torch.autograd.grad(
                self.image, self.z, u, retain_graph=True, create_graph=create_graph, allow_unused=True
            )
        if moved is None:  # the cell does not look at its state
            return torch.zeros_like(u)
        return moved if self.valid is None else moved * self.valid

    @property
    def entries(self) -> Tensor:
        """(batch,) the numbers of the state that count."""
        if self.valid is not None:
            return self.valid.sum(dim=(1, 2))
        return self.z.new_full(self.z.shape[:1], self.z[0].numel() if len(self.z) else 0)


def linearise(cell: Callable[..., Any], state: Any, context: Any, valid: Any, *, attached: bool) -> Linearisation:
    """Evaluate the cell once with a graph; `attached`: keep the state's own graph where it has one.

    Normalised weights are those of the last solve: a measurement moves nothing.
    """
    refuse_inference("a product with the cell's Jacobian")
    layout = Layout.of(state)
    z = layout.pack(state)
    check_context(context, z.shape[0])
    takes_context = context is not None or asks_for_context(cell)
    measured = pinned(cell, measured_weights(cell)) if isinstance(cell, nn.Module) else cell
    packed = PackedCell(measured, layout, context, selectable=False, takes_context=takes_context)
    with torch.enable_grad():
        if not (attached and z.requires_grad):
            z = z.detach().requires_grad_()
        image = packed(z)
    return Linearisation(z, image, None if valid is None else layout.pack_mask(valid, z.shape[0]))
