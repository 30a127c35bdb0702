"""The dense cell: one bounded matrix and a ReLU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poise.nn.cells.views import Views, each_view
from poise.nn.normalization import normalize


class DenseCell(nn.Module):
    """z -> relu(W z + BN(U x)), the spectral norm of W kept at `bound` at most.

    Below 1 the cell contracts, so that its fixed point exists, is the only one and is found by any solver (a sufficient
    condition of well-posedness: El Ghaoui et al. 2021, "Implicit deep learning"). W is computed once a
    solve. Batch norm stands outside the equilibrium map: within it, samples would be coupled and the fixed point of
    evaluation mode would be another. `batch_norm=False`: U x + b instead.

    >>> Equilibrium(DenseCell(144, 256))(torch.zeros(2, 144)).shape
    torch.Size([2, 256])
    """

    def __init__(self, in_features: int, width: int, *, bound: float = 0.9, batch_norm: bool = True) -> None:
        super().__init__()
        self.injection = nn.Sequential(nn.Linear(in_features, width, bias=not batch_norm))
        if batch_norm:
            self.injection.append(nn.BatchNorm1d(width))
        self.linear = normalize(nn.Linear(width, width, bias=False), "spectral", bound=bound)

    def inject(self, x: Views) -> Tensor:
        """Return the context (batch, width) of x (batch, in_features), or of several views one after another."""
        return each_view(self.injection, x)

    def forward(self, z: Tensor, context: Tensor) -> Tensor:
        """Evaluate the cell once; z and context are (batch, width)."""
        return torch.relu(self.linear(z) + context)
