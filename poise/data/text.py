"""Read a text and its splits: the embedded one, a UTF-8 file, or a folder with a file for each split."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from poise.data.embedded import embedded_text
from poise.data.errors import DataError
from poise.data.sources import EMBEDDED, locate, split_files
from poise.data.text_files import FilePart, Report, TextFile, TextFiles

TRAIN_FRACTION = 0.9
WHOLE = "whole"
IN_MEMORY = 8 << 20  # bytes of all splits together up to which a text is held as it is


@dataclass(frozen=True)
class TextSplits:
    """A text by name, in the parts that training, validation and testing read.

    `test` is None where the source has no such part. Line ends are those of the source, byte for byte.
    """

    name: str
    train: str = field(repr=False)
    valid: str = field(repr=False)
    test: str | None = field(default=None, repr=False)

    @property
    def parts(self) -> dict[str, str]:
        """The text of each split that there is."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        return {split: part for split, part in parts.items() if part is not None}


Text = TextSplits | TextFiles


def read_text(source: str | os.PathLike[str]) -> TextSplits:
    """Read the text that `source` names.

    `source` is the word `embedded`, a UTF-8 file or a folder (plain or .gz), or the name of a set in the data folder
    ($POISE_DATA, else $XDG_CACHE_HOME/poise, else ~/.cache/poise). A single file is split by position: its first
    90 % of characters train, the rest validates. A folder holds train.txt, valid.txt and perhaps test.txt, or
    wiki.{train,valid,test}.tokens. A leading byte order mark is dropped; nothing else is changed.

    Raises DataError if there is no such text, if it cannot be read or decoded, or if a part of it is empty.
    """
    name, files = _find(source)
    return _load(name, files)


def open_text(source: str | os.PathLike[str], *, in_memory: int = IN_MEMORY, report: Report | None = None) -> Text:
    """Return the text that `source` names: read, as by `read_text`, or to be read from its files at every use.

    The latter where they have more than `in_memory` bytes together, unpacked; the splits are the same. While such a
    text is read, `report` is called with what is being done, the characters done and their number in all.

    Raises DataError as `read_text` does, but of such a text's characters only when they are read.
    """
    name, files = _find(source)
    # What is no regular file, such as a pipe, can be read only once.
    if not all(file.path.is_file() for file in files.values()) or not _exceed(files, in_memory):
        return _load(name, files)
    if WHOLE in files:
        file = files[WHOLE]
        parts = {"train": FilePart(file, last=TRAIN_FRACTION), "valid": FilePart(file, first=TRAIN_FRACTION)}
        return TextFiles(name, parts, report)
    return TextFiles(name, {split: FilePart(file) for split, file in files.items()}, report)


def _find(source: str | os.PathLike[str]) -> tuple[str, Mapping[str, TextFile]]:
    """Return the name of a text and its files: one a split, `WHOLE` for all, or none for the embedded one."""
    source = os.fspath(source)
    if source == EMBEDDED:
        return EMBEDDED, {}
    path = locate(source)
    name = os.path.basename(os.path.abspath(path))
    if path.is_dir():
        return name, {split: TextFile(file) for split, file in split_files(path).items()}
    return Path(name.removesuffix(".gz")).stem, {WHOLE: TextFile(path)}


def _load(name: str, files: Mapping[str, TextFile]) -> TextSplits:
    if not files:
        return _split(name, embedded_text())
    texts = {split: "".join(file.pieces()) for split, file in files.items()}
    return _split(name, texts[WHOLE]) if WHOLE in texts else TextSplits(name, **texts)


def _exceed(files: Mapping[str, TextFile], size: int) -> bool:
    return sum(file.size(size + 1) for file in files.values()) > size


def _split(name: str, text: str) -> TextSplits:
    boundary = int(TRAIN_FRACTION * len(text))
    if boundary == 0:
        raise DataError(
            f"the text {name!r} has {len(text)} character, which leaves nothing to train on; pass a longer text."
        )
    return TextSplits(name, text[:boundary], text[boundary:])
