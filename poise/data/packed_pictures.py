"""Pictures packed as JPEG files one after another in one npz, decoded when they are asked for."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from poise.data.errors import DataError
from poise.data.npz import read_npz
from poise.data.samples import Samples, SampleSplits

KEYS = ("jpeg", "offsets", "labels", "class_names")


def read_packed(path: Path, limit: int | None = None) -> Samples:
    """Return the first `limit` pictures (N, 3, H, W) uint8 of a packed file, or all; all have one size.

    Raises DataError for a file that is damaged, or where pillow, which decodes, is not installed.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise DataError("pictures are decoded by pillow, which is missing; pip install 'poise[train]'.") from error
    jpeg, offsets, labels, names = read_npz(path, KEYS, "file of packed pictures").values()
    if limit is not None and limit < 1:
        raise DataError(f"limit={limit} leaves no picture; pass at least 1, or None for all.")
    number = len(labels) if limit is None else min(limit, len(labels))
    if len(offsets) != len(labels) + 1 or offsets[0] != 0 or offsets[-1] != len(jpeg) or (np.diff(offsets) <= 0).any():
        raise DataError(f"{str(path)!r} has offsets that do not fit its {len(labels)} pictures; fetch it anew.")
    pictures: Tensor | None = None
    for place in range(number):
        data = jpeg[offsets[place] : offsets[place + 1]].tobytes()
        try:
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
                decoded = torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).permute(2, 0, 1)
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise DataError(f"picture {place} of {str(path)!r} cannot be decoded ({error}); fetch it anew.") from error
        if pictures is None:
            pictures = torch.empty(number, *decoded.shape, dtype=torch.uint8)
        if decoded.shape != pictures.shape[1:]:
            raise DataError(
                f"picture {place} of {str(path)!r} is {tuple(decoded.shape)}, the first {tuple(pictures.shape[1:])}; "
                "all must have one size."
            )
        pictures[place] = decoded
    if pictures is None:
        raise DataError(f"{str(path)!r} holds no picture; fetch it anew.")
    classes = tuple(str(name) for name in names)
    return Samples(pictures, torch.from_numpy(labels[:number].astype(np.int64)), classes)


def packed_pictures(folder: Path, limit: int | None = None) -> SampleSplits:
    """Return `train.npz` (its first `limit` pictures) and the whole `test.npz` of a folder."""
    return SampleSplits(read_packed(folder / "train.npz", limit), read_packed(folder / "test.npz"))
