"""Words between white space as tokens, with each end of line as one more: the convention of the WikiText sets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from poise.data.errors import DataError
from poise.data.lines import line_blocks
from poise.data.tokenizer_base import Ids, checked_ids, write_tokenizer

UNKNOWN, END_OF_LINE = "<unk>", "<eos>"
_SPECIAL = (UNKNOWN, END_OF_LINE)


@dataclass(frozen=True, repr=False)
class WordTokenizer:
    """One id a word: its place in `words`, which open with `<unk>` and `<eos>` and then run from frequent to rare.

    Every line feed is one `<eos>`; a last line without one has none, so that a prompt can end in mid-line. A word
    that the vocabulary lacks becomes `<unk>`. White space is not kept: decoding sets single blanks.
    """

    words: tuple[str, ...]
    kind: ClassVar[str] = "word"

    def __repr__(self) -> str:
        return f"WordTokenizer(vocab_size={self.vocab_size})"

    def __post_init__(self) -> None:
        if self.words[:2] != _SPECIAL:
            raise DataError(f"a word vocabulary starts with {self.words[:2]}; let it start with {_SPECIAL}.")
        if len(self._ids) < len(self.words):
            repeated, count = Counter(self.words).most_common(1)[0]
            raise DataError(f"a word vocabulary has {repeated!r} {count} times; let its words be distinct.")

    @classmethod
    def from_text(cls, text: str | Iterable[str], vocab_size: int | None = None) -> WordTokenizer:
        """Return the tokenizer of the words of `text`, or of its most frequent ones up to `vocab_size` types.

        The text is whole or in pieces, cut anywhere. The types count `<unk>` and `<eos>`; words of equal frequency
        stand in alphabetical order.
        """
        if vocab_size is not None and vocab_size <= len(_SPECIAL):
            raise DataError(f"vocab_size={vocab_size} leaves no room for words; pass at least {len(_SPECIAL) + 1}.")
        counts: Counter[str] = Counter()
        characters = 0
        for block in line_blocks(text):
            counts.update(block.split())
            characters += len(block)
        for special in _SPECIAL:
            counts.pop(special, None)
        if not counts:
            raise DataError(f"a text of {characters} characters has no words; pass a text with words in it.")
        ranked = sorted(counts)
        ranked.sort(key=counts.__getitem__, reverse=True)  # equal counts keep their order
        kept = None if vocab_size is None else vocab_size - len(_SPECIAL)
        return cls((*_SPECIAL, *ranked[:kept]))

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> WordTokenizer:
        """Return the tokenizer that `save` wrote; raise DataError if the content is not one."""
        words = content.get("words")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise DataError(
                f"the words of a vocabulary are of type {type(words).__name__}; let them be a list of text."
            )
        return cls(tuple(words))

    @property
    def vocab_size(self) -> int:
        """Return the number of types, `<unk>` and `<eos>` included."""
        return len(self.words)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}

    def encode(self, text: str) -> Ids:
        """Return the ids of `text`, int32 of shape (words and line ends,); unknown words are `<unk>`."""
        ids, unknown = self._ids, self._ids[UNKNOWN]
        pieces = [
            np.array([ids.get(word, unknown) for word in block.replace("\n", f" {END_OF_LINE} ").split()], np.int32)
            for block in line_blocks(text)
        ]
        return np.concatenate(pieces) if pieces else np.empty(0, np.int32)

    def decode(self, ids: npt.ArrayLike | Tensor) -> str:
        """Return the words of `ids`, of shape (tokens,), with `<eos>` as a line feed; raise DataError out of range."""
        end = self._ids[END_OF_LINE]
        pieces = ["\n" if index == end else self.words[index] for index in checked_ids(ids, self.vocab_size).tolist()]
        return " ".join(pieces).replace(" \n", "\n").replace("\n ", "\n")

    @property
    def content(self) -> str:
        """Return the JSON that `save` writes."""
        return json.dumps({"kind": self.kind, "words": self.words}) + "\n"

    def save(self, folder: Path) -> None:
        """Write tokenizer.json in `folder`."""
        write_tokenizer(folder, self.content)
