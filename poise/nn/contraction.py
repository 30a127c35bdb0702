"""The rate at which plain iteration of a cell contracts, measured."""

from __future__ import annotations

import torch
from torch import Tensor

from poise.fixed_point.packed import PackedCell
from poise.fixed_point.residual import norms

STEPS = 30
# Steps within so many units of rounding of the state say nothing of the cell.
FLOOR = 20.0


@torch.no_grad()
def contraction_rate(cell: PackedCell, z: Tensor, dtype: torch.dtype) -> float:
    """Return the factor an evaluation by which plain iteration from z shrinks its step, the largest of the samples.

    `dtype`: in which the cell computes. It tends to the spectral radius where that is below 1; infinite where the
    iteration overflows.
    """
    steps, sizes = [], []
    for _ in range(STEPS):
        fz = cell(z)
        steps.append(norms(fz - z, "sample"))
        sizes.append(norms(fz, "sample"))
        z = fz
    floors = FLOOR * torch.finfo(dtype).eps * torch.cat(sizes, dim=1)
    return max(map(_rate, torch.cat(steps, dim=1).tolist(), floors.tolist()), default=0.0)


def _rate(steps: list[float], floors: list[float]) -> float:
    """Return the mean rate over the later half of the steps that stand above the floor of rounding."""
    if not all(step < float("inf") for step in steps):
        return float("inf")
    above = next((i for i, (step, floor) in enumerate(zip(steps, floors, strict=True)) if step <= floor), len(steps))
    if above < 2:
        return 0.0
    first, last = (above - 1) // 2, above - 1
    return (steps[last] / steps[first]) ** (1 / (last - first))
