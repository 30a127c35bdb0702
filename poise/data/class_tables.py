"""Which value or colour of a label picture means which class, and which means none."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from poise.data.errors import DataError
from poise.data.sources import unreadable

VOID = 255
"""The class of a pixel that counts as none: it is neither learnt nor measured."""
VOID_NAMES = ("void", "unlabelled", "unlabeled")
TABLE_FILES = ("classes.txt", "label_colors.txt", "class_dict.csv")

Colour = tuple[int, int, int]
Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ClassTable:
    """`class_names`, and what means which of them: `values` of grey or palette pictures, or else `colours` (R, G, B).

    What stands for no class is mapped to `VOID`. Raises DataError where both or neither are given, where a class is
    none of those named, or where there are more than a byte tells apart from `VOID`.
    """

    class_names: tuple[str, ...]
    values: Mapping[int, int] = field(default_factory=dict)
    colours: Mapping[Colour, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= len(self.class_names) <= VOID:
            raise DataError(f"a class table names {len(self.class_names)} classes; name 1 to {VOID}.")
        if bool(self.values) == bool(self.colours):
            raise DataError(
                f"a class table has {len(self.values)} values and {len(self.colours)} colours; give one kind."
            )
        allowed = {*range(len(self.class_names)), VOID}
        wrong = [(key, place) for key, place in [*self.values.items(), *self.colours.items()] if place not in allowed]
        if wrong:
            raise DataError(
                f"a class table maps {wrong[0][0]} to {wrong[0][1]}, but names {len(self.class_names)} classes; map to "
                f"one of these, or to {VOID} for none."
            )

    @classmethod
    def numbered(cls, names: Sequence[str]) -> ClassTable:
        """Return the table of values 0, 1, ... with these names; void and unlabelled are no class."""
        classes, places = _numbered([name.strip() for name in names])
        return cls(classes, values=dict(enumerate(places)))

    @classmethod
    def coloured(cls, rows: Sequence[tuple[Colour, str]]) -> ClassTable:
        """Return the table of these colours with their names, of which colours of one name are one class."""
        classes, places = _numbered([name.strip() for _, name in rows])
        colours = {colour: place for (colour, _), place in zip(rows, places, strict=True)}
        if len(colours) < len(rows):
            raise DataError(f"a class table of {len(rows)} rows has {len(colours)} colours; name each once.")
        return cls(classes, colours=colours)

    def of_values(self, values: npt.NDArray[np.integer], what: str) -> Array:
        """Return the class of each value, uint8; raise DataError, which names `what`, for one outside the table."""
        lookup = np.full(max(self.values, default=0) + 2, -1, np.int16)
        for value, place in self.values.items():
            lookup[value] = place
        # Whatever lies outside looks up the last entry, which no value has.
        inside = (values >= 0) & (values < len(lookup) - 1)
        found = lookup[np.where(inside, values, len(lookup) - 1)]
        if (found < 0).any():
            place = np.argwhere(found < 0)[0]
            raise _outside(what, f"the value {values[tuple(place)]}", place, len(self.values))
        return found.astype(np.uint8)

    def of_colours(self, colours: Array, what: str) -> Array:
        """Return the class of each colour (..., 3), uint8; raise DataError as `of_values` does."""
        known = np.array(sorted((_code(np.array(colour)), place) for colour, place in self.colours.items()))  # (n, 2)
        codes = _code(colours)
        rows = np.searchsorted(known[:, 0], codes).clip(max=len(known) - 1)
        wrong = known[rows, 0] != codes
        if wrong.any():
            place = np.argwhere(wrong)[0]
            raise _outside(what, f"the colour {tuple(map(int, colours[tuple(place)]))}", place, len(known))
        return known[rows, 1].astype(np.uint8)


# Cordts et al. (2016), "The Cityscapes dataset for semantic urban scene understanding": 19 of 34 classes are evaluated.
_CITYSCAPES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
CITYSCAPES = ClassTable(
    tuple(_CITYSCAPES.values()),
    values=dict.fromkeys((*range(34), 255), VOID) | {value: place for place, value in enumerate(_CITYSCAPES)},
)


def read_class_table(folder: Path) -> ClassTable:
    """Return the class table of a folder: its one file of `TABLE_FILES`.

    `classes.txt`: a name a line, for the values 0, 1, ... of grey and palette labels. `label_colors.txt`, as CamVid
    comes with: red, green, blue and a name a line. `class_dict.csv`: name,r,g,b below a line that says so. The names
    void and unlabelled mean no class. Raises DataError where there is none, or several, or a line cannot be read.
    """
    found = [folder / name for name in TABLE_FILES if (folder / name).is_file()]
    if len(found) != 1:
        held = " and ".join(path.name for path in found) or "no class table"
        raise DataError(f"{str(folder)!r} has {held}; put one of {', '.join(TABLE_FILES)} there.")
    path = found[0]
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    try:
        return _table(path.name, lines)
    except DataError as error:
        raise DataError(f"{str(path)!r} cannot be used: {error}") from error


def _table(name: str, lines: list[str]) -> ClassTable:
    if name == "classes.txt":
        return ClassTable.numbered(lines)
    rows = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if name == "class_dict.csv":
        table = [(number, next(csv.reader([line]))) for number, line in rows[1:]]
        return ClassTable.coloured([(_colour(cells[1:], number), cells[0]) for number, cells in table])
    split = [(number, line.split(maxsplit=3)) for number, line in rows]
    return ClassTable.coloured([(_colour(cells[:3], number), " ".join(cells[3:])) for number, cells in split])


def _numbered(names: list[str]) -> tuple[tuple[str, ...], list[int]]:
    """Return the distinct names in order, void left out, and the place of each name among them."""
    if "" in names:
        raise DataError(f"class {names.index('') + 1} of a class table has no name; give it one.")
    classes = tuple(dict.fromkeys(name for name in names if name.lower() not in VOID_NAMES))
    return classes, [classes.index(name) if name in classes else VOID for name in names]


def _colour(cells: list[str], line: int) -> Colour:
    digits = [cell.strip() for cell in cells]
    if len(digits) != 3 or not all(cell.isascii() and cell.isdigit() and int(cell) < 256 for cell in digits):
        raise DataError(f"line {line} names no colour; write red, green and blue from 0 to 255.")
    red, green, blue = map(int, digits)
    return red, green, blue


def _code(colours: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    red, green, blue = (colours[..., channel].astype(np.int64) for channel in range(3))
    return (red << 16) | (green << 8) | blue


def _outside(what: str, seen: str, place: npt.NDArray[np.integer], number: int) -> DataError:
    where = ", ".join(map(str, place))
    return DataError(
        f"{what} has {seen} at ({where}), which is none of the {number} of its class table; add it there, or mark it "
        f"{VOID_NAMES[0]}."
    )
