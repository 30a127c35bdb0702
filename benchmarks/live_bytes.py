"""Which bytes does a solve keep from one evaluation to the next, and at its peak? Storages are followed as they come.

The same for both libraries: a dispatch mode sees every tensor that an operation returns and holds weak references to
their storages. What one operation allocates and frees within itself is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass
class _Seen:
    reference: StorageWeakRef
    nbytes: int
    by_cell: bool  # made within an evaluation of the cell


class LiveBytes(TorchDispatchMode):
    """Follows the storages that are made while it is active; what existed before does not count.

    `within`: whether the peak is followed, with all that the cell makes; otherwise its outputs alone are seen.
    """

    def __init__(self, state_bytes: int, within: bool = False) -> None:
        super().__init__()
        self.state_bytes, self.within = state_bytes, within
        self.kept = 0  # the most bytes alive when the cell was called: what the solver holds
        self.history = 0  # the most of them in storages that hold more than one state
        self.peak = 0  # the most alive after any operation, where it is followed
        self._seen: dict[int, _Seen] = {}
        self._before: dict[int, StorageWeakRef] = {}
        self._depth = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._depth and not self.within:
            return op(*args, **kwargs)
        for tensor in _tensors((args, kwargs)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._seen and storage._cdata not in self._before:
                self._before[storage._cdata] = StorageWeakRef(storage)
        out = op(*args, **kwargs)
        self._follow(out, self._depth > 0)
        return out

    def _follow(self, made: Any, by_cell: bool) -> None:
        for tensor in _tensors(made):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._seen and storage._cdata not in self._before:
                self._seen[storage._cdata] = _Seen(StorageWeakRef(storage), storage.nbytes(), by_cell)
        if self.within:
            self.peak = max(self.peak, sum(seen.nbytes for seen in self._alive()))

    def watched(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """Return the cell with its calls watched: what is alive at a call is what the solver keeps."""

        def cell(*arguments: Any) -> Any:
            alive = [seen.nbytes for seen in self._alive()]
            self.kept = max(self.kept, sum(alive))
            self.history = max(self.history, sum(nbytes for nbytes in alive if nbytes > self.state_bytes))
            self._depth += 1
            try:
                image = f(*arguments)
            finally:
                self._depth -= 1
            self._follow(image, by_cell=True)
            return image

        return cell

    def history_alive(self) -> int:
        """Return the bytes now alive in storages that hold more than one state and were not made by the cell."""
        return sum(seen.nbytes for seen in self._alive() if seen.nbytes > self.state_bytes and not seen.by_cell)

    def _alive(self) -> Iterable[_Seen]:
        for key in [key for key, seen in self._seen.items() if seen.reference.expired()]:
            del self._seen[key]
        return self._seen.values()


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, tuple | list):
        for child in tree:
            yield from _tensors(child)
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))
