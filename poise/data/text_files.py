"""A text that is read from its files at every use, a piece at a time, so that it never lies in memory whole."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from poise.data.errors import DataError
from poise.data.sources import unreadable

CHUNK = 1 << 20  # bytes read at a time

# What is being done, characters done, characters in all.
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TextFile:
    """A UTF-8 file, plain or .gz; what is asked of it reads it from its beginning."""

    path: Path

    @property
    def packed(self) -> bool:
        """Whether the file is packed."""
        return self.path.name.endswith(".gz")

    @cached_property
    def characters(self) -> int:
        """The number of characters, without a byte order mark; raise DataError as `pieces` does."""
        return sum(map(len, self.pieces()))

    @cached_property
    def digest(self) -> str:
        """A digest of the file as it is stored."""
        found = hashlib.blake2b(digest_size=16)
        try:
            with self.path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    found.update(chunk)
        except OSError as error:
            raise unreadable(self.path, error) from error
        return found.hexdigest()

    def size(self, limit: int) -> int:
        """Return the number of bytes, unpacked, or some number from `limit` on; no more is read than it takes."""
        total = 0
        for chunk in self._chunks():
            total += len(chunk)
            if total >= limit:
                break
        return total

    def pieces(self) -> Iterator[str]:
        """Yield the text, cut anywhere; a leading byte order mark is dropped, and nothing else is changed.

        Raises DataError if the file is empty, not UTF-8 or not readable.
        """
        decoder = codecs.getincrementaldecoder("utf-8")()
        read = total = 0
        for chunk in self._chunks():
            text = self._decoded(decoder, chunk, read)
            read += len(chunk)
            if total == 0:
                text = text.removeprefix("\ufeff")
            total += len(text)
            if text:
                yield text
        self._decoded(decoder, b"", read)
        if not total:
            raise DataError(f"{str(self.path)!r} is empty; pass a file with text in it.")

    def _decoded(self, decoder: codecs.IncrementalDecoder, chunk: bytes, read: int) -> str:
        begin = read - len(decoder.getstate()[0])  # a character may have begun in the chunk before
        try:
            return decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            where = "of its unpacked bytes" if self.packed else "of the file"
            raise DataError(
                f"{str(self.path)!r} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset "
                f"{begin + error.start} {where} ({error.reason}); convert it to UTF-8."
            ) from error

    def _chunks(self) -> Iterator[bytes]:
        """Yield the unpacked bytes."""
        try:
            # Bytes, not text mode: universal newlines would turn \r\n into \n.
            with gzip.open(self.path) if self.packed else self.path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            reason = str(error).rstrip(".")
            raise DataError(
                f"{str(self.path)!r} is no readable .gz file ({reason}); fetch or pack it again."
            ) from error
        except OSError as error:
            raise unreadable(self.path, error) from error


@dataclass(frozen=True)
class FilePart:
    """A split: the characters of a file from one share of their number to another.

    `identity` tells it from the parts of all other texts, wherever they lie, by content: a name, a size and a date
    would take a changed text for the same where its date was kept, and a copied one for another.
    """

    file: TextFile
    first: float = 0.0
    last: float = 1.0

    @property
    def identity(self) -> tuple[str, bool, float, float]:
        """What the characters depend on."""
        return self.file.digest, self.file.packed, self.first, self.last

    def pieces(self) -> Iterator[str]:
        """Yield the text, cut anywhere."""
        start, stop = self._bounds
        position = 0
        for piece in self.file.pieces():
            kept = piece[max(start - position, 0) : stop - position]
            position += len(piece)
            if kept:
                yield kept
            if position >= stop:
                return

    @property
    def characters(self) -> int:
        """The number of characters."""
        start, stop = self._bounds
        return stop - start

    @property
    def _bounds(self) -> tuple[int, int]:
        return int(self.first * self.file.characters), int(self.last * self.file.characters)


@dataclass(frozen=True)
class TextFiles:
    """A text by name whose parts are read when they are asked for; `report` hears how far long reading is."""

    name: str
    parts: Mapping[str, FilePart]
    report: Report | None = field(default=None, repr=False, compare=False)

    def pieces(self, doing: str, *splits: str) -> Iterator[str]:
        """Yield the text of these splits, one after another, cut anywhere; `doing` names what it is read for."""
        total = sum(self.parts[split].characters for split in splits) if self.report else 0
        done = 0
        for split in splits:
            for piece in self.parts[split].pieces():
                yield piece
                done += len(piece)
                if self.report:
                    self.report(doing, done, total)
