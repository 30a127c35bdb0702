"""Folders of pictures with a label picture each, in the layouts of CamVid and of Cityscapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from poise.data.class_tables import CITYSCAPES, ClassTable, read_class_table
from poise.data.encoded_label_maps import EncodedLabelMaps
from poise.data.encoded_pictures import SeparateFiles, encoded, size_of
from poise.data.errors import DataError
from poise.data.picture_folders import TEST, TRAIN, VALID, by, listed, of_one_size, pictures_in, validation_of
from poise.data.samples import Samples, SampleSplits

ANNOTATED = "annot"
CITYSCAPES_PICTURES, CITYSCAPES_LABELS = "leftImg8bit", "gtFine"

Pairs = list[tuple[Path, Path]]  # a picture, and its label picture


def segmentation_folders(
    folder: Path, size: tuple[int, int] | None = None, table: ClassTable | None = None
) -> SampleSplits[Any]:
    """Return the pictures of `train`, `test` and, where there is one, `valid` or `val`, with their label maps.

    The labels of `train` lie in `trainannot` and so on (CamVid's layout): PNG of the same name, or with `_L` after it.
    What they mean is in the class table of the folder, which `read_class_table` finds, or in `table`. Pictures and
    labels stay encoded until they are selected. `size` (H, W) is what both are brought to, cut in the middle to its
    proportions; without it all must have one size. Raises DataError for a missing label, one of another size than its
    picture, or an empty folder; when a label is decoded, for what is outside the table.
    """
    table = table if table is not None else read_class_table(folder)
    valid = validation_of(folder)
    parts = {TRAIN: folder / TRAIN, TEST: folder / TEST, **({VALID: valid} if valid is not None else {})}
    pairs = {name: [(path, _camvid_label(path)) for path in pictures_in(own)] for name, own in parts.items()}
    return of_one_size({name: _paired(own, size, table) for name, own in pairs.items()}, folder)


def cityscapes(folder: Path, size: tuple[int, int] | None = None) -> SampleSplits[Any]:
    """Return Cityscapes from the folder that has `leftImg8bit` and `gtFine`: `train`, and `val` to test on.

    The labels of its own test are not public, and what is published is measured on `val`. Of the 34 ids of
    `*_gtFine_labelIds.png` 19 are classes (Cordts et al. 2016). Otherwise as `segmentation_folders`.
    """
    read = {}
    for name, part in ((TRAIN, "train"), (TEST, "val")):
        own = folder / CITYSCAPES_PICTURES / part
        cities = listed(own, Path.is_dir)
        if not cities:
            raise DataError(f"{str(own)!r} has no folder of a city; put Cityscapes's pictures there as they come.")
        labels = folder / CITYSCAPES_LABELS / part
        pairs = [(path, _cityscapes_label(path, labels / city.name)) for city in cities for path in pictures_in(city)]
        read[name] = _paired(pairs, size, CITYSCAPES)
    return of_one_size(read, folder)


def _camvid_label(picture: Path) -> Path:
    folder = picture.parent.with_name(picture.parent.name + ANNOTATED)
    return _existing(picture, [folder / f"{picture.stem}.png", folder / f"{picture.stem}_L.png"])


def _cityscapes_label(picture: Path, folder: Path) -> Path:
    frame = picture.stem.removesuffix(f"_{CITYSCAPES_PICTURES}")
    return _existing(picture, [folder / f"{frame}_{CITYSCAPES_LABELS}_labelIds.png"])


def _existing(picture: Path, names: list[Path]) -> Path:
    for path in names:
        if path.is_file():
            return path
    raise DataError(f"the picture {str(picture)!r} has no label {str(names[0])!r}; add it, or remove the picture.")


def _paired(pairs: Pairs, size: tuple[int, int] | None, table: ClassTable) -> Samples[Any]:
    for picture, label in pairs:
        seen, expected = size_of(label), size_of(picture)
        if seen != expected:
            raise DataError(f"the label {str(label)!r} is {by(seen)}, but its picture {by(expected)}; make them alike.")
    pictures, labels = (SeparateFiles(tuple(paths)) for paths in zip(*pairs, strict=True))
    inputs = encoded(pictures, len(pairs), size)
    maps = EncodedLabelMaps(labels, inputs.places, inputs.size, inputs.fit, table=table)
    return Samples(inputs, maps, table.class_names)
