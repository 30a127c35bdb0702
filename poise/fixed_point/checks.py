"""A look at a cell: does it repeat itself, keep its samples apart, and use its context?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

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
# Entries of a state that share one number of its sketch.
SKETCHED = 64
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
def look_at(cell: PackedCell, z: Tensor, fz: Tensor, rows: Tensor, *, thorough: bool = False) -> Look:
    """Evaluate one of the samples `rows` alone, twice, and a few with others' contexts; stop at what is wrong.

    `fz`: the cell's output on the whole batch `z`. `thorough`: evaluate the batch again and a few samples alone. Needs
    a context, else no sample can be evaluated alone.
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
    if thorough or differ(cell, alone, fz[first]):  # noise may spare one sample, twice
        repetition = max(repetition, _gap(cell(z)[rows], cell(z)[rows]))
    if not repetition <= REPEATED * cell.epsilon:
        return Look(repetition, finding=_random(name, repetition))
    if len(z) < 2:
        return Look(repetition)
    looked = rows[:LOOKED_AT]
    singly = looked if thorough else first
    others = [singly[i : i + 1] for i in range(1, len(singly))]
    singles = torch.cat([alone, *(cell.select(one)(z[one]) for one in others)])
    coupling = _gap(singles, fz[singly])
    if differ(cell, singles, fz[singly]):
        how = f"one evaluated alone differs by {coupling:.1e} from itself in the batch"
        return Look(repetition, coupling, finding=_coupled(name, how))
    exchanged = looked.roll(1)
    if not _contexts_differ(cell, looked, exchanged):
        return Look(repetition, coupling)
    own, swapped = cell.select(looked)(z[looked]), cell.select(exchanged)(z[looked])
    coupling = max(coupling, _gap(own, fz[looked]))
    if differ(cell, own, fz[looked]):
        how = f"{len(looked)} evaluated alone differ by {coupling:.1e} from themselves in the batch"
        return Look(repetition, coupling, finding=_coupled(name, how))
    ignored = torch.equal(own, swapped)
    return Look(repetition, coupling, not ignored, _deaf(name, len(looked)) if ignored else None)


def check_cell(cell: PackedCell, found: Iterate) -> None:
    """Look at a cell that has been solved, and warn of what breaks a solve; needs two samples and a context."""
    finite = (found.status != Status.NONFINITE).nonzero().squeeze(1)
    if not cell.selectable or len(finite) < 2:
        return
    finding = look_at(cell, found.z, found.fz, finite).finding
    if finding is not None:
        warnings.warn(f"{finding.message}.", CellWarning, stacklevel=outside_level())


def differ(cell: PackedCell, a: Tensor, b: Tensor) -> bool:
    """Return whether two images of a cell differ by more than kernels for other shapes may round."""
    return not _gap(a, b) <= min(ROUNDING * cell.epsilon, ROUNDING_SHARE)


def sketch(image: Tensor) -> Tensor:
    """Return few numbers (rows, n) that tell images (rows, groups, features) apart as `differ` does, at 1/64 the size.

    Sums over runs of entries under signs that are the same for every image: the expected square of a difference is kept
    (Johnson and Lindenstrauss 1984).
    """
    flat = image.flatten(1)
    signs = torch.randint(2, flat.shape[1:], generator=torch.Generator().manual_seed(0)).to(flat) * 2 - 1
    short = -flat.shape[1] % SKETCHED
    return torch.nn.functional.pad(flat * signs, (0, short)).unflatten(1, (-1, SKETCHED)).sum(dim=2)


def repeats(cell: PackedCell, again: Tensor, before: Tensor) -> bool:
    """Return whether an evaluation made again gave the image from before, on the samples where that was finite."""
    finite = before.flatten(1).isfinite().all(dim=1)
    return not bool(finite.any()) or _gap(again[finite], before[finite]) <= REPEATED * cell.epsilon


def cell_name(cell: PackedCell) -> str:
    """Return how a message names a cell."""
    return type(cell.f).__name__ if isinstance(cell.f, torch.nn.Module) else getattr(cell.f, "__name__", "cell")


def _random(name: str, gap: float) -> Finding:
    message = (
        f"the cell {name} is not deterministic: two evaluations of one state differ by {gap:.1e}; draw noise and "
        "dropout masks once a solve, in inject, and pass them on in the context"
    )
    return Finding("non-deterministic cell", message)


def _coupled(name: str, how: str) -> Finding:
    remedy = "use statistics of one sample (LayerNorm, GroupNorm), not of the batch"
    return Finding("batch-coupled cell", f"the cell {name} couples its samples: {how}; {remedy}")


def _deaf(name: str, looked: int) -> Finding:
    message = (
        f"the cell {name} ignores its context at the {looked} solutions looked at, where another sample's changes "
        "nothing; use what is passed as context, not what the cell closes over"
    )
    return Finding("context ignored", message)


def _gap(a: Tensor, b: Tensor) -> float:
    """Return the largest relative difference over the samples; a state near zero counts as a thousandth of the rest."""
    difference, size = (x.flatten(1).norm(dim=1) for x in (a - b, b))
    size = torch.maximum(size, 1e-3 * size.amax()).clamp_min(torch.finfo(b.dtype).tiny)
    return (difference / size).max().item()


def _contexts_differ(cell: PackedCell, first: Tensor, second: Tensor) -> bool:
    pairs = zip(
        tree_leaves(select_rows(cell.context, first)), tree_leaves(select_rows(cell.context, second)), strict=True
    )
    return any(not torch.equal(a, b) for (_, a), (_, b) in pairs)
