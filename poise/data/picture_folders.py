"""Folders of pictures: one folder a part, in it one folder a class, in it the class's pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    valid = validation_of(folder)
    parts = {TRAIN: folder / TRAIN, TEST: folder / TEST, **({VALID: valid} if valid is not None else {})}
    read = {name: _part(path, size) for name, path in parts.items()}
    return of_one_size(read, folder)


def of_one_size(parts: Mapping[str, Samples[Any]], folder: Path) -> SampleSplits[Any]:
    """Return the parts of a set as one, or raise DataError where their pictures differ in size."""
    common = parts[TRAIN].inputs.size
    for name, samples in parts.items():
        if samples.inputs.size != common:
            raise DataError(
                f"the pictures of {name!r} in {str(folder)!r} are {by(samples.inputs.size)}, those of {TRAIN!r} "
                f"{by(common)}; pass a size to bring them to."
            )
    return SampleSplits(parts[TRAIN], parts[TEST], parts.get(VALID), source=f"the pictures in {str(folder)!r}")


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder by name, or raise DataError where there is none or another file."""
    found = listed(folder, Path.is_file)
    if not found:
        raise DataError(f"{str(folder)!r} holds no picture; add some, or remove the folder.")
    for path in found:
        if path.suffix.lower() not in FORMATS:
            raise DataError(f"{str(path)!r} is no picture ({', '.join(FORMATS)}); remove it.")
    return found


def validation_of(folder: Path, suffix: str = "") -> Path | None:
    """Return what a folder holds to validate on, where there is any, by either of its names."""
    names = [name + suffix for name in (VALID, OTHER_NAMES[VALID])]
    found = [folder / name for name in names if (folder / name).exists()]
    if len(found) > 1:
        raise DataError(f"{str(folder)!r} has both {names[0]!r} and {names[1]!r}; remove one.")
    return found[0] if found else None


def listed(folder: Path, kind: Callable[[Path], bool]) -> list[Path]:
    """Return what is in a folder by name, hidden files left out."""
    try:
        return sorted(path for path in folder.iterdir() if kind(path) and not path.name.startswith("."))
    except OSError as error:
        raise unreadable(folder, error) from error


def by(size: tuple[int, int]) -> str:
    """Return height and width as a message says them."""
    return f"{size[0]}x{size[1]}"


def _part(folder: Path, size: tuple[int, int] | None) -> Samples[Any]:
    classes = listed(folder, Path.is_dir)
    if not classes:
        raise DataError(f"{str(folder)!r} has no folder of a class; put each class's pictures in a folder of its name.")
    found = [pictures_in(own) for own in classes]
    files = [path for own in found for path in own]
    labels = [label for label, own in enumerate(found) for _ in own]
    pictures = encoded(SeparateFiles(tuple(files)), len(files), size)
    return Samples(pictures, torch.tensor(labels), tuple(own.name for own in classes))
