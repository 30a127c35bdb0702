"""Labelled sets by name: those that come along, those of the data folder, and folders of pictures by their path."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from poise.data.cifar_batches import TRAIN as CIFAR_BATCHES
from poise.data.cifar_batches import cifar_batches
from poise.data.digits import digits, moved_digits
from poise.data.errors import DataError
from poise.data.idx import idx_pictures
from poise.data.multiple_features import multiple_features
from poise.data.packed_pictures import packed_pictures
from poise.data.picture_folders import picture_folders
from poise.data.samples import SampleSplits
from poise.data.sources import data_folder, nearest


def cifar10(folder: Path, limit: int | None = None) -> SampleSplits[Any]:
    """Return CIFAR-10 from a folder, as JPEG copies packed in npz files or as its authors' pickled batches.

    `limit`: of the training pictures, only so many from the first on. The test is whole.
    """
    for place in (folder, folder / "cifar-10-batches-py"):
        if (place / CIFAR_BATCHES[0]).is_file():
            return cifar_batches(place, limit)
    if (folder / "train.npz").is_file():
        return packed_pictures(folder, limit)
    raise DataError(
        f"{str(folder)!r} has neither {CIFAR_BATCHES[0]} (plain or in cifar-10-batches-py) nor train.npz; "
        "put CIFAR-10 there."
    )


COMING_ALONG: dict[str, Callable[[], SampleSplits[Any]]] = {"digits": digits, "moved-digits": moved_digits}
# Name: what reads it, and where it lies in the data folder.
IN_DATA_FOLDER: dict[str, tuple[Callable[..., SampleSplits[Any]], str]] = {
    "mnist": (idx_pictures, "mnist"),
    "cifar10": (cifar10, "cifar10"),
    "mfeat": (multiple_features, "mfeat.npz"),
}


def read_samples(source: str, limit: int | None = None) -> SampleSplits[Any]:
    """Return the labelled set that `source` names: digits, moved-digits, mnist, cifar10, mfeat, or a folder's path.

    `mfeat:pix,kar` names two of its kinds of features; without them they are pixels and Fourier coefficients.
    `limit`: of the training samples, only so many from the first on. Raises DataError, with the names there are and
    the nearest, for an unknown one; and for a limit that leaves some class without samples.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit={limit} leaves no sample; pass at least 1, or None for all.")
    found = _found(source, limit)
    if limit is None:
        return found
    train = found.train.restrict(slice(limit))
    present = len(train.labels.unique())
    if present < len(train.class_names):
        raise DataError(
            f"limit={limit} of {source!r} leaves {present} of {len(train.class_names)} classes; pass more, or take a "
            "few a class."
        )
    return SampleSplits(train, found.test, found.valid, found.source)


def _found(source: str, limit: int | None) -> SampleSplits[Any]:
    if source in COMING_ALONG:
        return COMING_ALONG[source]()
    known, _, kinds = source.partition(":")
    if known in IN_DATA_FOLDER and (not kinds or known == "mfeat"):
        read, name = IN_DATA_FOLDER[known]
        folder, setting = data_folder()
        if not (folder / name).exists():
            raise DataError(f"the set {known!r} is not at {str(folder / name)!r} ({setting}); put it there.")
        if kinds:
            return read(folder / name, kinds=tuple(kinds.split(",")))
        # Where pictures must be decoded, those beyond the limit are not.
        return read(folder / name, limit=limit) if read is cifar10 else read(folder / name)
    path = Path(os.path.expanduser(source))
    if source.strip() and path.is_dir():
        return picture_folders(path)
    names = [*COMING_ALONG, *IN_DATA_FOLDER]
    near = nearest(source, names)
    hint = f"perhaps you meant {near!r}" if near else "pass one of these or a folder of pictures"
    raise DataError(f"there is no set {source!r}, nor a folder of that name; by name: {', '.join(names)}; {hint}.")
