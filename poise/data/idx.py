"""Pictures in idx files, MNIST's format: four files of big-endian numbers, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from poise.data.errors import DataError
from poise.data.samples import Samples, SampleSplits
from poise.data.sources import unreadable

FILES = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> Tensor:
    """Return the array of an idx file of bytes, uint8; raise DataError where it is damaged or of another kind."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error if isinstance(error, OSError) else ValueError(str(error))) from error
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise DataError(f"{str(path)!r} begins with {data[:4].hex()!r}, not as an idx file of bytes; fetch it anew.")
    dimensions = data[3]
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise DataError(f"{str(path)!r} ends after {len(data)} bytes, within its header of {start}; fetch it anew.")
    shape = tuple(int.from_bytes(data[4 + 4 * place : 8 + 4 * place], "big") for place in range(dimensions))
    if len(data) != start + math.prod(shape):
        raise DataError(
            f"{str(path)!r} holds {len(data) - start} bytes where its shape {shape} needs {math.prod(shape)}; fetch it "
            "anew."
        )
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape).copy())


def idx_pictures(folder: Path, class_names: tuple[str, ...] = tuple("0123456789")) -> SampleSplits[Tensor]:
    """Return the pictures (N, 1, H, W) uint8 and labels of a folder in MNIST's layout."""

    def split(name: str) -> Samples[Tensor]:
        pictures = read_idx(_existing(folder, f"{FILES[name]}-images-idx3-ubyte"))
        labels = read_idx(_existing(folder, f"{FILES[name]}-labels-idx1-ubyte")).long()
        if pictures.dim() != 3 or labels.dim() != 1 or len(pictures) != len(labels):
            raise DataError(
                f"{str(folder)!r} has {name} pictures of shape {tuple(pictures.shape)} and labels of shape "
                f"{tuple(labels.shape)}; both files must come from one set."
            )
        if len(labels) and int(labels.max()) >= len(class_names):
            raise DataError(
                f"{str(folder)!r} has label {int(labels.max())} in {name}, beyond its {len(class_names)} classes; "
                "name them all."
            )
        return Samples(pictures.unsqueeze(1), labels, class_names)

    return SampleSplits(split("train"), split("test"), source=f"the idx files in {str(folder)!r}")


def _existing(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise DataError(f"{str(folder)!r} has no {name}, plain or .gz; put MNIST's four idx files there.")
