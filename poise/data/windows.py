"""Windows over one long sequence of tokens: random ones to train on, all of them to evaluate."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from poise.data.errors import DataError

Batch = tuple[Tensor, Tensor]  # inputs and next-token targets, both int64 of shape (batch, length)


@dataclass(frozen=True, eq=False)
class RandomWindows:
    """Training windows at uniformly random places of `tokens`; the batch of a step depends on the seed and it alone.

    `tokens` is a 1-D integer tensor of any width, possibly memory-mapped: it is read where the windows lie and never
    copied. `length` and `batch_size` count tokens and windows; `batch_size` is that of one process. The processes of a
    distributed run (`rank` of `world_size`) take consecutive rows of one global batch of batch_size * world_size, so
    two processes see together what one with twice the batch would see.

    Raises DataError if the tokens are no sequence of integers, are fewer than length + 1, or if a number is no size.
    """

    tokens: Tensor = field(repr=False)
    length: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        check_tokens(self.tokens, self.length, self.batch_size)
        if not 0 <= self.seed < 2**64:
            raise DataError(f"seed={self.seed} is out of range; pass an integer from 0 to 2**64 - 1.")
        check_place(self.rank, self.world_size)

    def batch(self, step: int) -> Batch:
        """Return the inputs and next-token targets of a step, counted from 0: int64, each (batch_size, length)."""
        if step < 0:
            raise DataError(f"step={step} is before the first; pass 0 or more.")
        starts = self.tokens.numel() - self.length
        # A counter-based generator goes to any step at once and keeps its stream in every version of NumPy. Torch's
        # would have to be seeded anew each step, and reads only 32 bits of a seed: distant steps would collide.
        generator = np.random.Philox(
            key=np.array([self.seed, 0], np.uint64), counter=np.array([0, 0, 0, step], np.uint64)
        )
        draws = generator.random_raw(self.batch_size * self.world_size)
        rows = draws[self.rank * self.batch_size : (self.rank + 1) * self.batch_size]
        first = torch.from_numpy((rows % np.uint64(starts)).astype(np.int64))  # (batch,); bias below 2**-32
        places = first[:, None] + torch.arange(self.length + 1)  # (batch, length + 1)
        return pair(self.tokens[places.to(self.tokens.device)])

    def from_step(self, step: int) -> WindowStream:
        """Return the endless stream of the batches from `step` on, for a loop or `DataLoader(..., batch_size=None)`."""
        return WindowStream(self, step)


class WindowStream(IterableDataset[Batch]):
    """The batches of `windows` from step `start` on, without end; each iteration begins again at `start`.

    The workers of a DataLoader take turns, so the batches arrive in the order of their steps with any number of them.
    """

    def __init__(self, windows: RandomWindows, start: int = 0) -> None:
        if start < 0:
            raise DataError(f"step={start} is before the first; pass 0 or more.")
        self.windows = windows
        self.start = start

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        offset, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return map(self.windows.batch, itertools.count(self.start + offset, stride))


def evaluation_batches(tokens: Tensor, length: int, batch_size: int) -> Sequence[Batch]:
    """Return all windows of `tokens` one after another, so that every token but the first is predicted exactly once.

    The batches are cut when asked for. Their inputs and targets are int64 of shape (batch, length): `batch_size`
    windows each, then the windows that remain, then, if tokens remain, one window (1, shorter) by itself. Weight a
    mean over batches by `targets.numel()`.

    Raises DataError if the tokens are no sequence of integers or fewer than length + 1.
    """
    check_tokens(tokens, length, batch_size)
    return _EvaluationBatches(tokens, length, batch_size)


@dataclass(frozen=True, eq=False)
class _EvaluationBatches(Sequence[Batch]):
    tokens: Tensor = field(repr=False)
    length: int
    batch_size: int

    def __len__(self) -> int:
        whole, rest = divmod(self.tokens.numel() - 1, self.length)
        return -(-whole // self.batch_size) + (rest > 0)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | Sequence[Batch]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]  # negative indices and IndexError as of any sequence
        rest = (self.tokens.numel() - 1) % self.length
        if rest and position == len(self) - 1:
            return pair(self.tokens[-rest - 1 :][None])
        span = self.batch_size * self.length
        # Windows share their border: the last target of one is the first input of the next. Unfolding leaves out what
        # does not fill a window.
        piece = self.tokens[position * span : (position + 1) * span + 1]
        return pair(piece.unfold(0, self.length + 1, self.length))


def pair(windows: Tensor) -> Batch:
    """Return the inputs and targets in windows of shape (batch, length + 1)."""
    windows = windows.long()
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


def check_place(rank: int, world_size: int) -> None:
    """Raise DataError where there is no such process."""
    if not 0 <= rank < world_size:
        raise DataError(f"rank={rank} is no process of world_size={world_size}; pass 0 to one less.")


def check_tokens(tokens: Tensor, length: int, batch_size: int) -> None:
    """Raise DataError where the tokens are no sequence of integers that holds one window, or a number is no size."""
    for name, value in (("length", length), ("batch_size", batch_size)):
        if value < 1:
            raise DataError(f"{name}={value} is no size; pass at least 1.")
    if tokens.dim() != 1 or tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise DataError(f"tokens are {tokens.dtype} of shape {tuple(tokens.shape)}; pass integers of shape (tokens,).")
    if tokens.numel() <= length:
        raise DataError(
            f"a text of {tokens.numel()} tokens is shorter than one sequence of length {length} with its last target "
            f"({length + 1} tokens); pass a longer text or a smaller length."
        )
