"""The residual |f(z) - z| / |f(z)| of every group, and what is compared with the tolerance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.fixed_point.packed import PackedCell
from poise.fixed_point.solvers.base import Scope, Solver


@dataclass(frozen=True)
class Measure:
    """What one evaluation says of each group, (rows, groups) each; of a tuple state the largest over its parts."""

    norm: Tensor  # |f(z) - z|
    size: Tensor  # |f(z)|
    residual: Tensor  # their ratio
    excess: Tensor  # what passes when it is at most `threshold`: the residual, or where atol counts norm / allowed


def threshold(solver: Solver) -> float:
    """Return the largest excess that passes."""
    return 1.0 if solver.atol else solver.rtol or 0.0


def measure(
    cell: PackedCell, solver: Solver, fz: Tensor, g: Tensor, valid: Tensor | None, dtype: torch.dtype | None = None
) -> Measure:
    """Return the residual of each group, with norms summed in `dtype` (default: the state's)."""
    with torch.no_grad():
        if valid is not None:
            g, fz = (torch.where(valid > 0, part, 0.0) for part in (g, fz))
        widths, positions = cell.layout.widths, cell.layout.positions
        if len(widths) == 1:
            return _measure_part(solver, fz, g, positions[0], dtype)
        parts = zip(g.split(widths, dim=2), fz.split(widths, dim=2), positions, strict=True)
        found = [_measure_part(solver, image, change, count, dtype) for change, image, count in parts]
        names = ("norm", "size", "residual", "excess")
        return Measure(*(torch.stack([getattr(part, name) for part in found]).amax(dim=0) for name in names))


def _measure_part(solver: Solver, fz: Tensor, g: Tensor, positions: int, dtype: torch.dtype | None) -> Measure:
    if positions > 1:  # one group, its positions in order
        g, fz = (part.unflatten(2, (positions, -1)).squeeze(1) for part in (g, fz))
    norm, size = norms(g, solver.scope, dtype), norms(fz, solver.scope, dtype)
    residual = norm / size.clamp_min(torch.finfo(size.dtype).tiny)
    excess = residual
    if solver.atol:
        excess = norm / (size * (solver.rtol or 0.0)).clamp_min(solver.atol)
    if positions > 1:
        norm, size = (torch.linalg.vector_norm(part, dim=1, keepdim=True) for part in (norm, size))
        residual, excess = (part.amax(dim=1, keepdim=True) for part in (residual, excess))
    return Measure(norm, size, residual, excess)


def norms(x: Tensor, scope: Scope, dtype: torch.dtype | None = None) -> Tensor:
    """Return the Euclidean norm of each group, (rows, groups); by prefix, of everything up to it."""
    norm = torch.linalg.vector_norm(x, dim=-1, dtype=dtype)
    return norm.square().cumsum(dim=1).sqrt() if scope == "prefix" else norm


def summable(dtype: torch.dtype) -> tuple[float, float]:
    """Return the sizes between which squares of a state and of its residual stay within the range of `dtype`."""
    kind = torch.finfo(dtype)
    return kind.tiny**0.5 / kind.eps, kind.max**0.5 * kind.eps**0.5
