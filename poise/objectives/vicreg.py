"""VICReg: views of one sample agree, every dimension varies, and no two dimensions vary together."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import torch
from torch import Tensor

from poise.objectives.decorrelation import variance_covariance, wide
from poise.objectives.gather import rows_of
from poise.objectives.views import check_views

Convention = Literal["authors", "paper", "vicregl"]

# What the sources make of two views; of more it is the same multiple of the mean over views.
VARIANCE_FACTOR: dict[Convention, float] = {"authors": 1.0, "paper": 2.0, "vicregl": 1.0}
COVARIANCE_FACTOR: dict[Convention, float] = {"authors": 2.0, "paper": 2.0, "vicregl": 1.0}


@dataclass(frozen=True)
class VICRegTerms:
    """The loss and what it is made of, scalars: `total` has the weights, the three terms have not."""

    total: Tensor
    invariance: Tensor
    variance: Tensor
    covariance: Tensor


@dataclass(frozen=True)
class VICRegLoss:
    """invariance * s + variance * v + covariance * c of two or more views of a batch of embeddings.

    `loss(view_1, view_2, ...)`, each (B, D), returns `VICRegTerms`. s: the mean squared difference over batch and
    dimensions, averaged over pairs of views (`invariance_term`). v: mean_j relu(floor - std_j), with
    std_j = sqrt(Var_j + eps) (`variance_term`). c: (1 / D) sum_{i != j} C_ij^2 (`covariance_term`).

    `convention`: what v and c are of two views. `authors`: the mean of v, the sum of c, as in the published code;
    `paper`: the sum of both, as in its pseudo-code; `vicregl`: the mean of both. Where a process group exists, v and c
    are those of the batch of all processes (`gather=False`: of the own rows), with the gradient that averaging over
    processes, as DistributedDataParallel does, makes exact; s is local, and its average over processes is that of all
    rows, also where their numbers differ. All is computed in float32 (float64 stays), whatever autocast says.
    Raises ValueError for views of different shapes or a batch of one. Bardes, Ponce and LeCun (2022).
    """

    convention: Convention = "authors"
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    floor: float = 1.0
    eps: float = 1e-4
    gather: bool = True
    group: Any = None

    def __post_init__(self) -> None:
        if self.convention not in VARIANCE_FACTOR:
            raise ValueError(
                f"VICRegLoss(convention={self.convention!r}) is unknown; pass 'authors', 'paper' or 'vicregl'."
            )
        for name in ("invariance", "variance", "covariance", "floor", "eps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise ValueError(f"VICRegLoss({name}={value!r}) is no weight; pass a number of at least 0.")

    def __call__(self, *views: Tensor) -> VICRegTerms:
        """Return the loss and its terms."""
        rows = rows_of(check_views("VICRegLoss", views), gather=self.gather, group=self.group)
        if rows.total < 2:
            raise ValueError("VICRegLoss needs a batch of at least 2 to see variance, and got 1; drop the last batch.")
        invariance = invariance_term(*views) * rows.share
        found = [variance_covariance(view, rows, self.floor, self.eps) for view in views]
        variance = torch.stack([one for one, _ in found]).mean() * VARIANCE_FACTOR[self.convention]
        covariance = torch.stack([one for _, one in found]).mean() * COVARIANCE_FACTOR[self.convention]
        total = self.invariance * invariance + self.variance * variance + self.covariance * covariance
        return VICRegTerms(total, invariance.detach(), variance.detach(), covariance.detach())


def invariance_term(*views: Tensor) -> Tensor:
    """Return the mean squared difference of views (B, D), averaged over their pairs."""
    pairs = list(combinations([wide(view) for view in views], 2))
    return torch.stack([(first - second).square().mean() for first, second in pairs]).mean()


def variance_term(z: Tensor, floor: float = 1.0, eps: float = 1e-4) -> Tensor:
    """Return mean_j relu(floor - sqrt(Var_j + eps)) of embeddings (B, D), Var with B - 1."""
    return variance_covariance(z, rows_of(z, gather=False), floor, eps)[0]


def covariance_term(z: Tensor) -> Tensor:
    """Return (1 / D) sum_{i != j} C_ij^2 of embeddings (B, D), C their covariance with B - 1."""
    return variance_covariance(z, rows_of(z, gather=False))[1]
