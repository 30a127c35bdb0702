"""What is seen of a solve on its way: a callback for every evaluation, and the states at chosen ones."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from poise.fixed_point.adjoints import JacobianFree
from poise.fixed_point.adjoints.base import Attachment, Ledger
from poise.fixed_point.packed import PackedCell
from poise.fixed_point.tally import Tally


@dataclass(frozen=True)
class Step:
    """One evaluation of the cell: its number from 1, the samples in it, what the cell returned for them, and how far.

    `samples`: (rows,) int64. `state`: as the cell returned it, detached, one row for each of them. `residual`: (rows,).
    """

    number: int
    samples: Tensor
    state: Any
    residual: Tensor


Callback = Callable[[Step], None]


@dataclass
class Observer:
    """Keeps the iterates of the evaluations wanted (None: all) and tells the callback of every one."""

    cell: PackedCell
    wanted: Collection[int] | None
    callback: Callback | None
    kept: dict[int, tuple[Tensor | None, Tensor, Tensor]] = field(default_factory=dict)

    def __call__(self, number: int, index: Tensor | None, z: Tensor, fz: Tensor, residual: Tensor) -> None:
        """Take one evaluation of the rows `index` (None: all samples)."""
        if self.wanted is None or number in self.wanted:
            self.kept[number] = index, z, fz
        if self.callback is not None:
            samples = torch.arange(len(z), device=z.device) if index is None else index
            # Copies: whatever the callback does with them, the solve goes on from its own.
            state = self.cell.layout.unpack(fz.detach().clone(), tuple(self.cell.dtypes) or None)
            self.callback(Step(number, samples, state, residual.detach().clone()))

    def states(self, attachment: Attachment, final: Any, recorded: bool) -> tuple[Any, ...]:
        """Return the states of the evaluations wanted; samples that had finished, and solves, are at their end."""
        numbers = sorted(self.kept) if self.wanted is None else sorted(self.wanted)
        return tuple(self._state(attachment, self.kept[n], recorded) if n in self.kept else final for n in numbers)

    def _state(self, attachment: Attachment, kept: tuple[Tensor | None, Tensor, Tensor], recorded: bool) -> Any:
        index, z, fz = kept
        found = attachment.found
        if index is not None:
            z, fz = found.z.index_copy(0, index, z), found.fz.index_copy(0, index, fz)
        if recorded:  # the solve was recorded, and this evaluation with it
            return self.cell.layout.unpack(fz, tuple(self.cell.dtypes) or None)
        at = replace(found, z=z.detach(), fz=fz.detach())
        return JacobianFree().attach(
            replace(attachment, found=at, ledger=Ledger([], Tally("a recorded state"), "ignore"))
        )


def wanted_evaluations(record: bool | Collection[int], max_steps: int) -> Collection[int] | None:
    """Return which evaluations to keep, None for all; refuse numbers that no solve reaches."""
    if isinstance(record, bool):
        return None if record else ()
    if isinstance(record, str) or not isinstance(record, Collection):
        raise TypeError(
            f"record={record!r} is of type {type(record).__name__}; pass evaluations by number from 1, such as (2, 4), "
            "or True for all."
        )
    for number in record:
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= max_steps:
            raise ValueError(
                f"record={tuple(record)!r} names evaluation {number!r}; pass whole numbers from 1 to the solver's "
                f"max_steps, {max_steps}, or True for all."
            )
    return frozenset(record)
