"""A look at a cell: does it repeat itself, keep its samples apart, and use its context?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from poise.fixed_point.loop import Iterate
from poise.fixed_point.packed import Count, PackedCell
from poise.fixed_point.solution import CellWarning, Status
from poise.fixed_point.tally import outside_level
from poise.fixed_point.tree import select_rows, tree_leaves

# Kernels for other shapes round differently; what a cell couples by mistake is far above this many units of rounding,
# or above this share of the state where those units are large.
ROUNDING, ROUNDING_SHARE = 1000.0, 0.1
# The same evaluation again rounds alike, but for sums whose order a device leaves open.
REPEATED = 10.0
# Samples whose contexts are exchanged: one alone may be saturated.
LOOKED_AT = 8


@dataclass(frozen=True)
class Finding:
    """What is wrong: its name, and a clause that says where, by how much, and what to do."""

    name: str
    message: str

    def __str__(self) -> str:
        return f"{self.name}: {self.message}."


@dataclass(frozen=True)
class Look:
    """What a few evaluations of a cell show; None is what could not be seen."""

    repetition: float | None = None  # relative difference of two evaluations of one sample
    coupling: float | None = None  # of one sample alone and in the batch
    uses_context: bool | None = None
    finding: Finding | None = None


@torch.no_grad()
def look_at(cell: PackedCell, z: Tensor, fz: Tensor, rows: Tensor) -> Look:
    """Evaluate one of the samples `rows` alone, twice, and a few with others' contexts; stop at what is wrong.

    `fz`: the cell's output on the whole batch `z`. Needs a context, else no sample can be evaluated alone.
    """
    name = cell_name(cell)
    cell = PackedCell(cell.f, cell.layout, cell.context, True, Count(), list(cell.dtypes), cell.takes_context)
    first = rows[:1]
    try:
        alone = cell.select(first)(z[first])
        repeated = cell.select(first)(z[first])
    except Exception as error:
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        return Look(finding=_coupled(name, f"it cannot be evaluated on one alone ({reason})"))
    repetition = _gap(alone, repeated)
    look = Look(repetition)
    if not repetition <= REPEATED * cell.epsilon:
        message = (
            f"the cell {name} is not deterministic: two evaluations of one state differ by "
            f"{repetition:.1e}; draw noise and dropout masks once a solve, in inject, and pass them on "
            "in the context"
        )
        return replace(look, finding=Finding("non-deterministic cell", message))
    if len(z) < 2:
        return look
    coupling = _gap(alone, fz[first])
    look = replace(look, coupling=coupling)
    if not coupling <= min(ROUNDING * cell.epsilon, ROUNDING_SHARE):
        how = f"one evaluated alone differs by {coupling:.1e} from itself in the batch"
        return replace(look, finding=_coupled(name, how))
    looked = rows[:LOOKED_AT]
    others = looked.roll(1)
    if not _contexts_differ(cell, looked, others):
        return look
    own, swapped = cell.select(looked)(z[looked]), cell.select(others)(z[looked])
    if not torch.equal(own, swapped):
        return replace(look, uses_context=True)
    message = (
        f"the cell {name} ignores its context at the {len(looked)} solutions looked at, where another sample's "
        "changes nothing; use what is passed as context, not what the cell closes over"
    )
    return replace(look, uses_context=False, finding=Finding("context ignored", message))


def check_cell(cell: PackedCell, found: Iterate) -> None:
    """Look at a cell that has been solved, and warn of what breaks a solve; needs two samples and a context."""
    finite = (found.status != Status.NONFINITE).nonzero().squeeze(1)
    if not cell.selectable or len(finite) < 2:
        return
    finding = look_at(cell, found.z, found.fz, finite).finding
    if finding is not None:
        warnings.warn(f"{finding.message}.", CellWarning, stacklevel=outside_level())


def cell_name(cell: PackedCell) -> str:
    """Return how a message names a cell."""
    return type(cell.f).__name__ if isinstance(cell.f, torch.nn.Module) else getattr(cell.f, "__name__", "cell")


def _coupled(name: str, how: str) -> Finding:
    remedy = "use statistics of one sample (LayerNorm, GroupNorm), not of the batch"
    return Finding("batch-coupled cell", f"the cell {name} couples its samples: {how}; {remedy}")


def _gap(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm().clamp_min(torch.finfo(b.dtype).tiny)).item()


def _contexts_differ(cell: PackedCell, first: Tensor, second: Tensor) -> bool:
    pairs = zip(
        tree_leaves(select_rows(cell.context, first)), tree_leaves(select_rows(cell.context, second)), strict=True
    )
    return any(not torch.equal(a, b) for (_, a), (_, b) in pairs)
