"""What an adjoint is given, and what it does: attach a solved state to the graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from poise.fixed_point.dual import carried, in_dual_level
from poise.fixed_point.loop import Iterate, iterate
from poise.fixed_point.options import check_options
from poise.fixed_point.packed import PackedCell
from poise.fixed_point.solution import OnFailure, Solution, Status
from poise.fixed_point.solvers import Solver
from poise.fixed_point.tally import Tally
from poise.fixed_point.tree import select_rows, tree_map


@dataclass(frozen=True)
class Ledger:
    """Where the solves of a backward are entered: with the solution, in the counts, and aloud if they failed."""

    backward: list[Solution]
    tally: Tally
    on_failure: OnFailure

    def enter(self, record: Solution, what: str | None = None) -> None:
        """Enter one solve; `what` it was, in words."""
        self.backward[:] = [record]
        self.tally.add(record, self.on_failure, what)


@dataclass(frozen=True)
class Attachment:
    """Everything an adjoint may use of a finished solve."""

    cell: PackedCell
    found: Iterate
    parameters: tuple[Tensor, ...]
    ledger: Ledger


@dataclass(frozen=True)
class Adjoint(ABC):
    """How gradients pass through a fixed point."""

    # Whether the solve itself is recorded, instead of what `attach` adds after it.
    records_solve: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def records(self) -> bool:
        """Whether gradients go through recorded operations alone, so that the transforms of `torch.func` follow."""
        return self.records_solve

    def find(self, cell: PackedCell, z: Tensor, solver: Solver, **options: Any) -> Iterate:
        """Solve from `z`, recorded or not; an adjoint may wrap the cell or bring an iteration of its own."""
        if self.records_solve:
            return iterate(cell, z, solver, **options)
        # Detached, the context looks the same before and after rows were selected, and a compiled cell is made once.
        cell = replace(cell, context=tree_map(Tensor.detach, cell.context))
        with torch.no_grad(), carried(False):
            return iterate(cell, z, solver, **options)

    @abstractmethod
    def attach(self, attachment: Attachment) -> Any:
        """Return the state, attached to the graph where gradients are wanted."""


def detached_state(attachment: Attachment) -> Any:
    """Return the cell's own last output, in the cell's own dtype."""
    cell, found = attachment.cell, attachment.found
    return cell.layout.unpack(found.fz, tuple(cell.dtypes) or None)


def derivatives_wanted() -> bool:
    """Whether a state can be asked for a derivative, in reverse or in forward mode."""
    return torch.is_grad_enabled() or in_dual_level()


def usable_rows(attachment: Attachment) -> Tensor | None:
    """Return the rows on which the cell may be evaluated with a graph, or None for all.

    A sample on which the cell returned NaN is left out where it can be: even a zero gradient through it would reach the
    parameters as NaN. It has no gradient.
    """
    bad = attachment.found.status == Status.NONFINITE
    if not attachment.cell.selectable or not bool(bad.any()):
        return None
    return (~bad).nonzero().squeeze(1)


def on_usable_rows(attachment: Attachment, attach: Callable[[PackedCell, Any, Tensor], Tensor], at: Any = None) -> Any:
    """Apply `attach(cell, z, fz) -> fz` to the rows that may have a graph and return the whole state.

    `at`: what is passed as z, a tree of tensors with a leading batch dimension (default: the iterate).
    """
    cell, found = attachment.cell, attachment.found
    at = found.z if at is None else at
    rows = usable_rows(attachment)
    if rows is None:
        attached = attach(cell, at, found.fz)
    elif rows.numel() == 0:
        # Nothing can be differentiated, but a backward through it must not fail: the failure has been told of.
        attached = found.fz.detach().requires_grad_(torch.is_grad_enabled())
    else:
        part = attach(cell.select(rows), select_rows(at, rows), found.fz[rows])
        attached = torch.index_copy(found.fz, 0, rows, part)
    return cell.layout.unpack(attached, tuple(cell.dtypes) or None)
