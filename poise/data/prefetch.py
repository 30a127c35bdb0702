"""Batches made ahead of their use by threads, in the order of their numbers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from poise.data.errors import DataError

Made = TypeVar("Made")


@dataclass(frozen=True)
class Prefetched(Generic[Made]):
    """`batch(first)`, `batch(first + 1)`, ..., `number` of them or without end; where they begin is all the state.

    `workers` threads make them ahead, at most `ahead` more than are taken; without workers each is made when it is
    asked for. `batch` must be a function of its number alone, so the batches are the same whatever the workers. Threads
    suffice where it decodes, since pillow and torch do that without Python's lock. What `batch` raises is raised where
    its batch would have come. Threads begin with the first batch and end with the iteration, also where it is left
    early. Raises DataError for numbers that are none.
    """

    batch: Callable[[int], Made]
    first: int = 0
    number: int | None = None
    workers: int = 0
    ahead: int = 4

    def __post_init__(self) -> None:
        if self.first < 0 or (self.number is not None and self.number < 0) or self.workers < 0 or self.ahead < 1:
            raise DataError(
                f"first={self.first}, number={self.number}, workers={self.workers} and ahead={self.ahead} name no "
                "batches; pass none below 0, and at least 1 ahead."
            )

    def __iter__(self) -> Iterator[Made]:
        return self._made_ahead() if self.workers else (self.batch(index) for index in self._indices())

    def _indices(self) -> Iterator[int]:
        index = self.first
        while self.number is None or index < self.first + self.number:
            yield index
            index += 1

    def _made_ahead(self) -> Iterator[Made]:
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="poise-batches")
        indices, waiting = self._indices(), deque[Future[Made]]()
        try:
            while True:
                for index in indices:
                    waiting.append(pool.submit(self.batch, index))
                    if len(waiting) >= self.ahead:
                        break
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            # Those not begun are not made; those begun are waited for, so that no thread outlives the iteration.
            pool.shutdown(wait=True, cancel_futures=True)
