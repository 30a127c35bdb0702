"""What a network is measured on: all samples in order, batch by batch, and what share of these a process takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from poise.data import Samples

Batch = TypeVar("Batch")


class PlainBatches(Sequence[Batch]):
    """All samples in their order, `size` at a time and `times` over; the last batch of each time may be smaller.

    `make(samples, number)`: what a batch is made of its samples, by its number; called whenever it is asked for.
    """

    def __init__(
        self, samples: Samples[Any], size: int, make: Callable[[Samples[Any], int], Batch], times: int = 1
    ) -> None:
        self.samples = samples
        self.size = size
        self.make = make
        self.times = times
        self.per_time = -(-len(samples) // size)

    def __len__(self) -> int:
        return self.per_time * self.times

    def __getitem__(self, number: Any) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(number)
        start = number % self.per_time * self.size
        return self.make(self.samples.select(slice(start, start + self.size)), number)

    def find(self, place: int) -> tuple[int, int]:
        """Return in which batch, and in which row of it, the sample of a place in the whole is."""
        time, within = divmod(place, len(self.samples))
        return time * self.per_time + within // self.size, within % self.size


class Share(Sequence[Any]):
    """Every `count`-th item of a sequence; the shares of all processes are the whole, none twice."""

    def __init__(self, items: Sequence[Any], rank: int, count: int) -> None:
        self.items = items
        self.places = range(rank, len(items), count)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        return self.items[self.places[index]]
