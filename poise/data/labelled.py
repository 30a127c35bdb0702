"""Labelled sets by name: those that come along, those of the data folder, and folders of pictures by their path."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from poise.data.cifar_batches import TRAIN as CIFAR_BATCHES
from poise.data.cifar_batches import cifar_batches
from poise.data.digit_scenes import digit_scenes
from poise.data.digits import digits, moved_digits
from poise.data.errors import DataError
from poise.data.idx import idx_pictures
from poise.data.multiple_features import multiple_features
from poise.data.packed_pictures import packed_pictures
from poise.data.picture_folders import TRAIN, picture_folders
from poise.data.samples import SampleSplits
from poise.data.segmentation_folders import ANNOTATED, CITYSCAPES_PICTURES, cityscapes, segmentation_folders
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


COMING_ALONG: dict[str, Callable[[], SampleSplits[Any]]] = {
    "digits": digits,
    "moved-digits": moved_digits,
    "scenes": digit_scenes,
}
# Name: what reads it, and where it lies in the data folder.
IN_DATA_FOLDER: dict[str, tuple[Callable[..., SampleSplits[Any]], str]] = {
    "mnist": (idx_pictures, "mnist"),
    "cifar10": (cifar10, "cifar10"),
    "mfeat": (multiple_features, "mfeat.npz"),
    "camvid": (packed_pictures, "camvid"),
}


def read_samples(source: str, limit: int | None = None, size: tuple[int, int] | None = None) -> SampleSplits[Any]:
    """Return the labelled set that `source` names, or that lies in the folder of that path.

    By name: digits, moved-digits, mnist, cifar10 and mfeat with a class each; camvid with a class at each pixel; scenes
    with both. `mfeat:pix,kar` names two of its kinds of features instead of pixels and Fourier coefficients. A folder
    that has `leftImg8bit` is read by `cityscapes`, one that has `trainannot` by `segmentation_folders`, any other by
    `picture_folders`. `limit`: of the training samples, only so many from the first on. `size` (H, W): what the
    pictures of a folder are brought to. Raises DataError, with the names there are and the nearest, for an unknown one;
    for a limit that leaves some class without samples; and for a size of a set that has one of its own.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit={limit} leaves no sample; pass at least 1, or None for all.")
    found = _found(source, limit, size)
    if limit is None:
        return found
    train = found.train.restrict(slice(limit))
    if not train.per_pixel:
        present = len(train.labels.unique())
        if present < len(train.class_names):
            raise DataError(
                f"limit={limit} of {source!r} leaves {present} of {len(train.class_names)} classes; pass more, or take "
                "a few a class."
            )
    return SampleSplits(train, found.test, found.valid, found.source)


def _found(source: str, limit: int | None, size: tuple[int, int] | None) -> SampleSplits[Any]:
    if size is not None and source in (*COMING_ALONG, *IN_DATA_FOLDER):
        raise DataError(f"size={size} is for folders of pictures, and {source!r} has a size of its own; leave it out.")
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
        return read(folder / name, limit=limit) if read in (cifar10, packed_pictures) else read(folder / name)
    path = Path(os.path.expanduser(source))
    if source.strip() and path.is_dir():
        return _reader(path)(path, size)
    names = [*COMING_ALONG, *IN_DATA_FOLDER]
    near = nearest(source, names)
    hint = f"perhaps you meant {near!r}" if near else "pass one of these or a folder of pictures"
    raise DataError(f"there is no set {source!r}, nor a folder of that name; by name: {', '.join(names)}; {hint}.")


def _reader(folder: Path) -> Callable[[Path, tuple[int, int] | None], SampleSplits[Any]]:
    """Return what reads a folder of that layout."""
    if (folder / CITYSCAPES_PICTURES).is_dir():
        return cityscapes
    return segmentation_folders if (folder / (TRAIN + ANNOTATED)).is_dir() else picture_folders
