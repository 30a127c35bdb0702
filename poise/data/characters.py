"""Characters as tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from poise.data.errors import DataError
from poise.data.lines import pieces_of
from poise.data.tokenizer_base import Ids, checked_ids, write_tokenizer

_NAMED = 10  # missing characters that a message names


@dataclass(frozen=True)
class CharTokenizer:
    """One id a character: its place among `characters`, which are distinct and ascend by code point."""

    characters: str
    kind: ClassVar[str] = "char"

    def __post_init__(self) -> None:
        if not self.characters:
            raise DataError("a character vocabulary has 0 characters; build it from a text that is not empty.")
        if any(a >= b for a, b in zip(self.characters, self.characters[1:], strict=False)):
            raise DataError(
                f"the {len(self.characters)} characters of a vocabulary are not distinct and ascending; "
                "use CharTokenizer.from_text."
            )

    @classmethod
    def from_text(cls, text: str | Iterable[str]) -> CharTokenizer:
        """Return the tokenizer of exactly the characters that occur in `text`, whole or in pieces."""
        found: set[str] = set()
        for piece in pieces_of(text):
            found.update(piece)
        return cls("".join(sorted(found)))

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> CharTokenizer:
        """Return the tokenizer that `save` wrote; raise DataError if the content is not one."""
        characters = content.get("characters")
        if not isinstance(characters, str):
            raise DataError(
                f"the characters of a vocabulary are of type {type(characters).__name__}; let them be text."
            )
        return cls(characters)

    @property
    def vocab_size(self) -> int:
        """Return the number of characters."""
        return len(self.characters)

    @cached_property
    def _codes(self) -> npt.NDArray[np.uint32]:
        return _code_points(self.characters)

    def encode(self, text: str) -> Ids:
        """Return the ids of `text`, int32 of shape (characters,).

        Raises DataError, naming them, if the text has characters that the vocabulary lacks.
        """
        codes = _code_points(text)
        ids = np.searchsorted(self._codes, codes)
        ids = np.minimum(ids, self.vocab_size - 1, out=ids)
        unknown = codes[self._codes[ids] != codes]
        if unknown.size:
            raise DataError(self._lacking(np.unique(unknown).tolist()))
        return ids.astype(np.int32)

    def decode(self, ids: npt.ArrayLike | Tensor) -> str:
        """Return the characters of `ids`, of shape (tokens,); raise DataError for an id out of range."""
        codes = self._codes[checked_ids(ids, self.vocab_size)]
        return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")

    @property
    def content(self) -> str:
        """Return the JSON that `save` writes."""
        return json.dumps({"kind": self.kind, "characters": self.characters}) + "\n"

    def save(self, folder: Path) -> None:
        """Write tokenizer.json in `folder`."""
        write_tokenizer(folder, self.content)

    def _lacking(self, codes: list[int]) -> str:
        named = ", ".join(f"{chr(code)!r} (U+{code:04X})" for code in codes[:_NAMED])
        more = f" and {len(codes) - _NAMED} more" if len(codes) > _NAMED else ""
        return (
            f"the text has {len(codes)} character{'s' if len(codes) > 1 else ''} that the vocabulary of "
            f"{self.vocab_size} lacks: {named}{more}; leave them out, or build the tokenizer from a text that has them."
        )


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    # Lone surrogates pass here, so that they are reported like any other character that is missing.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
