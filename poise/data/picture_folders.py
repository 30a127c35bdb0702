"""Folders of pictures: one folder a part, in it one folder a class, in it the class's pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from poise.data.encoded_pictures import FORMATS, SeparateFiles, encoded
from poise.data.errors import DataError
from poise.data.samples import Samples, SampleSplits
from poise.data.sources import unreadable

TRAIN, VALID, TEST = "train", "valid", "test"
OTHER_NAMES = {VALID: "val"}


def picture_folders(folder: Path, size: tuple[int, int] | None = None) -> SampleSplits[Any]:
    """Return the pictures of `train/CLASS`, `test/CLASS` and, where there is one, `valid/CLASS` or `val/CLASS`.

    They stay encoded until they are selected. `size` (H, W) is what they are brought to, cut in the middle to its
    proportions; without it all must have one size. Classes are numbered by name; hidden files are left out. Raises
    DataError for a missing part, an empty class, a file that is no picture, or classes that differ between parts.
    """
    valid = _valid(folder)
    train = _part(folder / TRAIN, size)
    # Without a size all parts must have that of the training pictures.
    common = size or train.inputs.size
    rest = {name: _part(path, size) for name, path in ((TEST, folder / TEST), (VALID, valid)) if path is not None}
    for name, samples in rest.items():
        if samples.inputs.size != common:
            raise DataError(
                f"the pictures of {name!r} in {str(folder)!r} are {_by(samples.inputs.size)}, those of {TRAIN!r} "
                f"{_by(common)}; pass a size to bring them to."
            )
    return SampleSplits(train, rest[TEST], rest.get(VALID), source=f"the pictures in {str(folder)!r}")


def _part(folder: Path, size: tuple[int, int] | None) -> Samples[Any]:
    classes = _listed(folder, Path.is_dir)
    if not classes:
        raise DataError(f"{str(folder)!r} has no folder of a class; put each class's pictures in a folder of its name.")
    files: list[Path] = []
    labels: list[int] = []
    for label, own in enumerate(classes):
        found = _listed(own, Path.is_file)
        if not found:
            raise DataError(f"{str(own)!r} holds no picture; add some, or remove the folder.")
        for path in found:
            if path.suffix.lower() not in FORMATS:
                raise DataError(f"{str(path)!r} is no picture ({', '.join(FORMATS)}); remove it.")
        files += found
        labels += [label] * len(found)
    pictures = encoded(SeparateFiles(tuple(files)), len(files), size)
    return Samples(pictures, torch.tensor(labels), tuple(own.name for own in classes))


def _valid(folder: Path) -> Path | None:
    names = (VALID, OTHER_NAMES[VALID])
    found = [folder / name for name in names if (folder / name).is_dir()]
    if len(found) > 1:
        raise DataError(f"{str(folder)!r} has both {names[0]!r} and {names[1]!r}; remove one.")
    return found[0] if found else None


def _listed(folder: Path, kind: Callable[[Path], bool]) -> list[Path]:
    """Return what is in a folder by name, hidden files left out."""
    try:
        return sorted(path for path in folder.iterdir() if kind(path) and not path.name.startswith("."))
    except OSError as error:
        raise unreadable(folder, error) from error


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
