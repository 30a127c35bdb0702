"""Whether an answer depends on where its solve began, or on how long it lasted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from poise.fixed_point.loop import iterate
from poise.fixed_point.packed import Count, PackedCell
from poise.fixed_point.solution import Status
from poise.fixed_point.solvers import Solver
from poise.fixed_point.starts import SAME

STARTS = 2  # drawn, beside the layer's own


@dataclass(frozen=True)
class Independence:
    """What other starts, and more evaluations, make of the same samples; None is what was not measured."""

    agreement: float | None = None  # part of the solves from N(0, 1) that end where the layer's own did, within 2 %
    cosine: float | None = None  # of the states they end at with the layer's own, the mean
    change: float | None = None  # relative change of the state within as many evaluations again, the largest


@torch.no_grad()
def path_independence(
    cell: PackedCell, z: Tensor, solver: Solver, valid: Tensor | None, generator: torch.Generator
) -> Independence:
    """Solve the samples of a cell anew from N(0, 1), and further from where they ended, z (batch, 1, features).

    Anil et al. (2022), "Path independent equilibrium models can better exploit test-time computation", section 4.
    """
    own = _counted(z, valid)
    agrees, cosines = [], []
    for _ in range(STARTS):
        start = torch.randn(z.shape, generator=generator, dtype=torch.float64).to(z)
        found = iterate(replace(cell, count=Count()), start, solver, valid=valid)
        other = _counted(found.fz, valid)
        ended = found.status != Status.NONFINITE
        agrees.append((_distance(other, own) <= SAME) & ended)
        cosines.append(torch.nn.functional.cosine_similarity(other.double(), own.double(), dim=1)[ended])
    further = iterate(replace(cell, count=Count()), z, replace(solver, rtol=None, atol=0.0), valid=valid)
    change = _distance(_counted(further.fz, valid), own).amax()
    together = torch.cat(cosines)
    return Independence(
        float(torch.cat(agrees).double().mean()),
        float(together.mean()) if len(together) else None,
        float(change) if bool(change.isfinite()) else None,
    )


def _counted(z: Tensor, valid: Any) -> Tensor:
    return (z if valid is None else torch.where(valid > 0, z, 0.0)).flatten(1)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Return |a - b| over the larger of both, for each row."""
    size = torch.maximum(torch.linalg.vector_norm(a, dim=1), torch.linalg.vector_norm(b, dim=1))
    return torch.linalg.vector_norm(a - b, dim=1) / size.clamp_min(torch.finfo(a.dtype).tiny)
