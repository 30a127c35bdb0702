"""Instances of a puzzle, and how training and test are kept apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "test"]
Grid = NDArray[np.uint8]

TESTED = 8  # one in so many instances belongs to the test split


@dataclass(frozen=True)
class Instances:
    """Puzzles of one size with their answers."""

    given: Grid  # (n, ...)
    answer: Grid  # (n, ...)
    difficulty: NDArray[np.int64]  # (n,), in the puzzle's own measure

    def __len__(self) -> int:
        return len(self.given)

    def select(self, index: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Instances:
        """Return some of them."""
        return Instances(self.given[index], self.answer[index], self.difficulty[index])

    @staticmethod
    def joined(parts: Sequence[Instances]) -> Instances:
        """Return the instances of all parts, one part after another."""
        names = ("given", "answer", "difficulty")
        return Instances(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def in_split(keys: Grid, split: Split) -> NDArray[np.bool_]:
    """Return which of the keys (n, ...) belong to a split: what an instance is decides, so that no seed mixes them."""
    flat = np.ascontiguousarray(keys.reshape(len(keys), -1)).astype(np.uint64)
    # A polynomial in a large odd number, modulo 2^64, of which the high bits are well mixed.
    powers = np.cumprod(np.full(flat.shape[1], 0x9E3779B97F4A7C15, np.uint64))
    mixed = ((flat + np.uint64(1)) * powers).sum(axis=1, dtype=np.uint64)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    tested = (mixed >> np.uint64(40)) % np.uint64(TESTED) == 0
    return tested if split == "test" else ~tested


def gathered(draw: Callable[[int], Instances], count: int, split: Split) -> Instances:
    """Draw until there are `count` instances of a split, told apart by what is given."""
    parts: list[Instances] = []
    missing = count
    while missing > 0:
        # As many as are likely to do, and a few for luck.
        share = 1 / TESTED if split == "test" else 1 - 1 / TESTED
        drawn = draw(int(missing / share) + 8)
        parts.append(drawn.select(in_split(drawn.given, split)))
        missing -= len(parts[-1])
    return Instances.joined(parts).select(slice(count)) if parts else draw(0)
