"""CIFAR-10 as its authors give it: pickled batches of Python 2, read so that nothing in them can run code.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. A batch is a dictionary of bytes: `data`, an
array (10000, 3072) of uint8, all red of a picture, then green, then blue, row by row; `labels`, a list of 0 to 9.
"""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poise.data.errors import DataError
from poise.data.samples import Samples, SampleSplits
from poise.data.sources import unreadable

SIZE = (3, 32, 32)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = ("test_batch",)


class _Dtype:
    """Stands for numpy's dtype while a batch is read: only bytes are admitted."""

    def __init__(self, code: Any, *_: Any) -> None:
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"an array of {code!r} is none of bytes")

    def __setstate__(self, state: Any) -> None:
        """Byte order means nothing for bytes."""


class _Array:
    """Stands for numpy's array while a batch is read: keeps the shape and the bytes, and runs none of numpy's code."""

    def __init__(self, *_: Any) -> None:
        self.values: npt.NDArray[np.uint8] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, columns_first, held = state
        if (
            not isinstance(kind, _Dtype)
            or columns_first
            or not isinstance(held, bytes)
            or len(held) != math.prod(shape)
        ):
            raise pickle.UnpicklingError(f"an array of shape {shape} does not hold as many bytes")
        self.values = np.frombuffer(held, dtype=np.uint8).reshape(shape)


# What a pickled array names, old and new. Dictionaries, lists, bytes and integers need no name.
_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array of bytes")
        return _ADMITTED[module, name]


def read_cifar_batch(path: Path) -> tuple[Tensor, Tensor]:
    """Return the pictures (N, 3, 32, 32) uint8 and the labels (N,) int64 of one file.

    Raises DataError for a file that is damaged, is no such batch, or names anything but arrays of bytes.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        held = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle may raise nearly anything
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DataError(f"{str(path)!r} is no batch of CIFAR-10 ({reason}); fetch it anew.") from error
    pictures = held.get(b"data") if isinstance(held, dict) else None
    labels = held.get(b"labels") if isinstance(held, dict) else None
    if not isinstance(pictures, _Array) or pictures.values is None or not isinstance(labels, list):
        raise DataError(f"{str(path)!r} is no batch of CIFAR-10 (it lacks an array 'data' or a list 'labels').")
    number, values = len(labels), pictures.values
    if values.shape != (number, math.prod(SIZE)) or not all(
        type(label) is int and 0 <= label < len(CLASSES) for label in labels
    ):
        raise DataError(
            f"{str(path)!r} holds data of shape {values.shape} and {number} labels, not {math.prod(SIZE)} bytes and a "
            f"label of 0 to {len(CLASSES) - 1} for each picture; fetch it anew."
        )
    return torch.from_numpy(values.reshape(number, *SIZE).copy()), torch.tensor(labels, dtype=torch.int64)


def cifar_batches(folder: Path, limit: int | None = None) -> SampleSplits[Tensor]:
    """Return the first `limit` training pictures, or all, and the whole test of a folder `cifar-10-batches-py`."""
    if limit is not None and limit < 1:
        raise DataError(f"limit={limit} leaves no picture; pass at least 1, or None for all.")

    def part(names: tuple[str, ...], limit: int | None) -> Samples[Tensor]:
        read: list[tuple[Tensor, Tensor]] = []
        for name in names:
            if limit is None or sum(len(labels) for _, labels in read) < limit:
                read.append(read_cifar_batch(folder / name))
        pictures, labels = (torch.cat(kind)[:limit] for kind in zip(*read, strict=True))
        return Samples(pictures, labels, CLASSES)

    return SampleSplits(part(TRAIN, limit), part(TEST, None), source=f"CIFAR-10's batches in {str(folder)!r}")
