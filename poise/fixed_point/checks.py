"""One look at a cell: does it keep its samples apart, repeat itself, and use its context?"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from poise.fixed_point.loop import Iterate
from poise.fixed_point.packed import Count, PackedCell
from poise.fixed_point.solution import CellWarning, Status
from poise.fixed_point.tally import outside_level
from poise.fixed_point.tree import select_rows, tree_leaves

# Kernels for other shapes round differently; what a cell couples by mistake is far above this many units of rounding.
ROUNDING = 1000.0
# Samples whose contexts are exchanged: one alone may be saturated.
LOOKED_AT = 8


@torch.no_grad()
def check_cell(cell: PackedCell, found: Iterate) -> None:
    """Evaluate a solved sample alone, and a few with others' contexts; warn of a cell that breaks what a solve needs.

    Needs a context (else no sample can be evaluated alone) and at least two samples.
    """
    finite = (found.status != Status.NONFINITE).nonzero().squeeze(1)
    if not cell.selectable or len(finite) < 2:
        return
    name = type(cell.f).__name__ if isinstance(cell.f, torch.nn.Module) else getattr(cell.f, "__name__", "cell")
    cell = PackedCell(cell.f, cell.layout, cell.context, True, Count(), list(cell.dtypes), cell.takes_context)
    first = finite[:1]
    try:
        alone = cell.select(first)(found.z[first])
        repeated = cell.select(first)(found.z[first])
    except Exception as error:
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        _warn(
            f"the cell {name} couples its samples: it cannot be evaluated on one alone ({reason}); use statistics "
            "of one sample (LayerNorm, GroupNorm), not of the batch"
        )
        return
    if _differ(cell, alone, repeated):
        _warn(
            f"the cell {name} is not deterministic: two evaluations of one state differ by "
            f"{_gap(alone, repeated):.1e}; draw noise and dropout masks once a solve, in inject, and pass them on "
            "in the context"
        )
        return
    if _differ(cell, alone, found.fz[first]):
        _warn(
            f"the cell {name} couples its samples: one evaluated alone differs by "
            f"{_gap(alone, found.fz[first]):.1e} from itself in the batch; use statistics of one sample "
            "(LayerNorm, GroupNorm), not of the batch"
        )
        return
    looked = finite[:LOOKED_AT]
    others = looked.roll(1)
    if _contexts_differ(cell, looked, others):
        own, swapped = cell.select(looked)(found.z[looked]), cell.select(others)(found.z[looked])
        if torch.equal(own, swapped):
            _warn(
                f"the cell {name} ignores its context at the {len(looked)} solutions looked at, where another sample's "
                "changes nothing; use what is passed as context, not what the cell closes over"
            )


def _warn(message: str) -> None:
    warnings.warn(f"{message}.", CellWarning, stacklevel=outside_level())


def _gap(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm().clamp_min(torch.finfo(b.dtype).tiny)).item()


def _differ(cell: PackedCell, a: Tensor, b: Tensor) -> bool:
    return not _gap(a, b) <= ROUNDING * cell.epsilon


def _contexts_differ(cell: PackedCell, first: Tensor, second: Tensor) -> bool:
    pairs = zip(
        tree_leaves(select_rows(cell.context, first)), tree_leaves(select_rows(cell.context, second)), strict=True
    )
    return any(not torch.equal(a, b) for (_, a), (_, b) in pairs)
