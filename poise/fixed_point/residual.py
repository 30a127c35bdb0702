"""The residual |f(z) - z| / |f(z)| of every group, and whether it is within the tolerance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.fixed_point.packed import PackedCell
from poise.fixed_point.solvers.base import Solver


@dataclass(frozen=True)
class Measure:
    """Norms (float64) and the test of one evaluation, each (rows, groups)."""

    norm: Tensor  # |f(z) - z|
    size: Tensor  # |f(z)|
    residual: Tensor  # their ratio, the largest over the parts
    passed: Tensor


def measure(cell: PackedCell, solver: Solver, fz: Tensor, g: Tensor, valid: Tensor | None) -> Measure:
    """Return the residual of each group, and whether it is within the tolerance."""
    with torch.no_grad():
        if valid is not None:
            g, fz = g * valid, fz * valid
        widths = cell.layout.widths
        if len(widths) == 1:
            return _measure_part(solver, fz, g)
        parts = zip(g.split(widths, dim=2), fz.split(widths, dim=2), strict=True)
        found = [_measure_part(solver, image, change) for change, image in parts]
        return Measure(
            norm=torch.stack([part.norm for part in found]).amax(dim=0),
            size=torch.stack([part.size for part in found]).amax(dim=0),
            residual=torch.stack([part.residual for part in found]).amax(dim=0),
            passed=torch.stack([part.passed for part in found]).all(dim=0),
        )


def _measure_part(solver: Solver, fz: Tensor, g: Tensor) -> Measure:
    norm, size = norms(g, solver.scope), norms(fz, solver.scope)
    allowed = size * (solver.rtol or 0.0)
    if solver.atol:
        allowed = allowed.clamp_min(solver.atol)
    residual = (norm / size.clamp_min(torch.finfo(size.dtype).tiny)).to(g.dtype)
    return Measure(norm, size, residual, (norm <= allowed) & norm.isfinite())


def norms(x: Tensor, scope: str) -> Tensor:
    """Return the Euclidean norm of each group, (rows, groups) in float64; by prefix, of everything up to it.

    Squares of float32 numbers under- and overflow long before the numbers do.
    """
    norm = torch.linalg.vector_norm(x, dim=-1, dtype=torch.float64)
    return norm.square().cumsum(dim=1).sqrt() if scope == "prefix" else norm
