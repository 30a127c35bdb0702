"""Barlow Twins: each dimension of one view correlates with the same of the other, and with no other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from poise.objectives.decorrelation import wide
from poise.objectives.gather import gathered, rows_of
from poise.objectives.views import check_views


@dataclass(frozen=True)
class BarlowTerms:
    """The loss and what it is made of, scalars: `total` has the weight, the two terms have not."""

    total: Tensor
    on_diagonal: Tensor
    off_diagonal: Tensor


@dataclass(frozen=True)
class BarlowTwinsLoss:
    """sum_i (1 - C_ii)^2 + weight * sum_{i != j} C_ij^2, C the cross-correlation of two views over the batch.

    `loss(view_1, view_2)`, each (B, D), returns `BarlowTerms`. Views are standardised by column (variance with B, plus
    eps, as batch normalisation does); C divides by B. Where a process group exists, the batch is that of all processes,
    with the exact gradient under averaging; in float32 or better whatever autocast says. sum C_ij^2 is made of the
    smaller of the D x D and two B x B matrices. Zbontar, Jing, Misra, LeCun and Deny (2021), equation 1.
    """

    weight: float = 0.0051
    eps: float = 1e-5
    gather: bool = True
    group: Any = None

    def __call__(self, first: Tensor, second: Tensor) -> BarlowTerms:
        """Return the loss and its terms."""
        check_views("BarlowTwinsLoss", (first, second))
        rows = rows_of(first, gather=self.gather, group=self.group)
        if rows.total < 2:
            raise ValueError(
                "BarlowTwinsLoss needs a batch of at least 2 to correlate, and got 1; drop the last batch."
            )
        with torch.autocast(first.device.type, enabled=False):
            a, b = (self._standardised(gathered(wide(view), rows)) for view in (first, second))
            diagonal = (a * b).mean(dim=0)
            on = (1 - diagonal).square().sum()
            if a.shape[1] <= rows.total:
                correlation = a.t() @ b / rows.total
                off = (correlation - torch.diag(correlation.diagonal())).square().sum()
            else:  # |A^T B|^2 = <A A^T, B B^T>
                off = ((a @ a.t()) * (b @ b.t())).sum() / rows.total**2 - diagonal.square().sum()
        return BarlowTerms(on + self.weight * off, on.detach(), off.detach())

    def _standardised(self, z: Tensor) -> Tensor:
        centred = z - z.mean(dim=0)
        return centred * (centred.square().mean(dim=0) + self.eps).rsqrt()
