"""A cell from any module with one input."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Injected(nn.Module):
    """f(z, x) = block(z + x): the input is added at every evaluation."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, z: Tensor, context: Any) -> Tensor:
        """Return block(z + context); both (batch, ...) of one shape."""
        return self.block(z + context)


def inject(block: nn.Module) -> Injected:
    """Make a cell of a module whose output has its input's shape; the input of the layer is added to the state.

    Whether its fixed point exists and is found depends on the block: small weights, a bounded activation or a
    normalisation at its end help; the solution's status says whether they did.
    """
    return Injected(block)
