"""Prefix sums: the parity of all bits up to each one (Schwarzschild et al. 2021)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from poise.data.errors import DataError
from poise.data.puzzles.instances import Grid, Instances, Split, gathered


def solution(bits: Grid) -> Grid:
    """Return the parity of the bits up to each one, (n, length)."""
    return (np.cumsum(bits, axis=1, dtype=np.int64) % 2).astype(np.uint8)


def generate(count: int, length: int, generator: np.random.Generator, split: Split = "train") -> Instances:
    """Return `count` uniformly random strings of `length` bits; their length is their difficulty.

    Raises DataError for a size below 1.
    """
    if count < 0 or length < 1:
        raise DataError(f"there are no {count} strings of {length} bits; pass sizes of at least 1.")

    def draw(number: int) -> Instances:
        bits = generator.integers(0, 2, (number, length), dtype=np.uint8)
        return Instances(bits, solution(bits), np.full(number, length))

    return gathered(draw, count, split)


def is_solution(bits: Grid, answer: Grid) -> NDArray[np.bool_]:
    """Return which answers (n, length) are the prefix sums of their bits."""
    found: NDArray[np.bool_] = (answer == solution(bits)).all(axis=1)
    return found


def parse(text: str) -> Grid:
    """Return a line of bits as (length,).

    Raises DataError, without saying where, for any character but 0 and 1.
    """
    foreign = sorted(set(text) - {"0", "1"})
    if foreign:
        raise DataError(f"{foreign[0]!r} is no bit; write 0 and 1")
    return np.array([int(bit) for bit in text], np.uint8)


def written(answer: Grid) -> str:
    """Return bits (length,) as a line."""
    return "".join(map(str, answer.tolist()))
