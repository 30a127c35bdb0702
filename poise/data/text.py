"""Read a text and its splits: the embedded one, a UTF-8 file, or a folder with a file for each split."""

from __future__ import annotations

import gzip
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from poise.data.embedded import embedded_text
from poise.data.errors import DataError
from poise.data.sources import EMBEDDED, locate, split_files, unreadable

TRAIN_FRACTION = 0.9


@dataclass(frozen=True)
class TextSplits:
    """A text by name, in the parts that training, validation and testing read.

    `test` is None where the source has no such part. Line ends are those of the source, byte for byte.
    """

    name: str
    train: str = field(repr=False)
    valid: str = field(repr=False)
    test: str | None = field(default=None, repr=False)


def read_text(source: str | os.PathLike[str]) -> TextSplits:
    """Read the text that `source` names.

    `source` is the word `embedded`, a UTF-8 file or a folder (plain or .gz), or the name of a set in the data folder
    ($POISE_DATA, else $XDG_CACHE_HOME/poise, else ~/.cache/poise). A single file is split by position: its first
    90 % of characters train, the rest validates. A folder holds train.txt, valid.txt and perhaps test.txt, or
    wiki.{train,valid,test}.tokens. A leading byte order mark is dropped; nothing else is changed.

    Raises DataError if there is no such text, if it cannot be read or decoded, or if a part of it is empty.
    """
    source = os.fspath(source)
    if source == EMBEDDED:
        return _split(EMBEDDED, embedded_text())
    path = locate(source)
    name = os.path.basename(os.path.abspath(path))
    if path.is_dir():
        parts = {split: _read(file) for split, file in split_files(path).items()}
        return TextSplits(name, parts["train"], parts["valid"], parts.get("test"))
    return _split(Path(name.removesuffix(".gz")).stem, _read(path))


def _split(name: str, text: str) -> TextSplits:
    boundary = int(TRAIN_FRACTION * len(text))
    if boundary == 0:
        raise DataError(
            f"the text {name!r} has {len(text)} character, which leaves nothing to train on; pass a longer text."
        )
    return TextSplits(name, text[:boundary], text[boundary:])


def _read(path: Path) -> str:
    """Return the file's text; raise DataError if it is empty, not UTF-8 or not readable."""
    packed = path.name.endswith(".gz")
    try:
        # Bytes, not text mode: universal newlines would turn \r\n into \n.
        with gzip.open(path) if packed else path.open("rb") as file:
            data = file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        reason = str(error).rstrip(".")
        raise DataError(f"{str(path)!r} is no readable .gz file ({reason}); fetch or pack it again.") from error
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        where = "of its unpacked bytes" if packed else "of the file"
        raise DataError(
            f"{str(path)!r} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start} {where} "
            f"({error.reason}); convert it to UTF-8."
        ) from error
    if not text:
        raise DataError(f"{str(path)!r} is empty; pass a file with text in it.")
    return text
