"""Pictures packed as JPEG files one after another in one npz."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from poise.data.class_tables import ClassTable
from poise.data.encoded_pictures import PackedFiles, encoded
from poise.data.errors import DataError
from poise.data.npz import read_npz
from poise.data.picture_folders import by, validation_of
from poise.data.samples import Samples, SampleSplits

KEYS = ("jpeg", "offsets", "labels", "class_names")


def read_packed(path: Path, limit: int | None = None, lazy: bool = False) -> Samples[Any]:
    """Return the first `limit` pictures (N, 3, H, W) uint8 of a packed file, or all; all have one size.

    Its labels are a class each, (N,), or label maps, (N, H, W), where a class named void or unlabelled becomes `VOID`.
    `lazy`: pictures stay encoded until they are selected. Raises DataError for a file that is damaged, or where pillow,
    which decodes, is not installed.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit={limit} leaves no picture; pass at least 1, or None for all.")
    jpeg, offsets, labels, names = read_npz(path, KEYS, "file of packed pictures").values()
    if labels.ndim not in (1, 3) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{str(path)!r} has labels {labels.dtype} of shape {labels.shape}; pass a file with one class a picture, "
            "or one label map."
        )
    if (
        jpeg.dtype != np.uint8
        or jpeg.ndim != 1
        or not np.issubdtype(offsets.dtype, np.integer)
        or offsets.shape != (len(labels) + 1,)
        or offsets[0] != 0
        or offsets[-1] != len(jpeg)
        or (offsets[1:] <= offsets[:-1]).any()
    ):
        raise DataError(f"{str(path)!r} has offsets that do not fit its {len(labels)} pictures; fetch it anew.")
    if not len(labels):
        raise DataError(f"{str(path)!r} holds no picture; fetch it anew.")
    number = len(labels) if limit is None else min(limit, len(labels))
    pictures = encoded(PackedFiles(path, jpeg, offsets.astype(np.int64)), number)
    inputs = pictures if lazy else pictures[:]
    classes = tuple(str(name) for name in names)
    if labels.ndim == 1:
        return Samples(inputs, torch.from_numpy(labels[:number].astype(np.int64)), classes)
    if labels.shape[1:] != pictures.size:
        raise DataError(
            f"{str(path)!r} has label maps of {by(labels.shape[1:])} and pictures of {by(pictures.size)}; "
            "both must have one size."
        )
    table = ClassTable.numbered(classes)
    maps = torch.from_numpy(table.of_values(labels[:number], f"the array 'labels' of {str(path)!r}"))
    return Samples(inputs, maps, table.class_names)


def packed_pictures(folder: Path, limit: int | None = None, lazy: bool = False) -> SampleSplits[Any]:
    """Return `train.npz` (its first `limit` pictures) and the whole `test.npz` of a folder, as `read_packed` does.

    Where there is `valid.npz` or `val.npz`, it is validated on.
    """
    valid = validation_of(folder, ".npz")
    return SampleSplits(
        read_packed(folder / "train.npz", limit, lazy),
        read_packed(folder / "test.npz", lazy=lazy),
        read_packed(valid, lazy=lazy) if valid is not None else None,
        source=f"JPEG copies in {str(folder)!r}",
    )
