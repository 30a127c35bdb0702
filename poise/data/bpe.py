"""Byte-level byte-pair encoding, trained and run by the `tokenizers` library."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from poise.data.errors import DataError
from poise.data.lines import line_blocks
from poise.data.tokenizer_base import Ids, checked_ids, write_tokenizer

DEFAULT_VOCAB_SIZE = 4096  # three to four characters a token on a megabyte of English
BYTES = 256  # the alphabet: with every byte in the vocabulary no text is unknown


@dataclass(frozen=True, repr=False)
class BPETokenizer:
    """Byte-level BPE given by `definition`, the JSON that the `tokenizers` library writes and reads.

    Every text round-trips exactly. A token never reaches across a line feed, so that a long text may be encoded line
    by line with the same ids.
    """

    definition: str
    kind: ClassVar[str] = "bpe"

    def __repr__(self) -> str:
        return f"BPETokenizer(vocab_size={self.vocab_size})"

    @classmethod
    def from_text(cls, text: str | Iterable[str], vocab_size: int | None = None) -> BPETokenizer:
        """Train on `text`; the vocabulary has `vocab_size` ids (4,096 if None), or fewer where the text is short.

        The text is whole or in pieces, cut anywhere.

        Raises DataError below 256, the bytes themselves, or without the `tokenizers` library.
        """
        size = DEFAULT_VOCAB_SIZE if vocab_size is None else vocab_size
        if size < BYTES:
            raise DataError(f"vocab_size={size} is below the {BYTES} bytes of a byte-level BPE; pass at least {BYTES}.")
        engine = _untrained()
        library = _library()
        trainer = library.trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=2,
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        engine.train_from_iterator(_encodable(line_blocks(text)), trainer=trainer)
        return cls(_canonical(engine))

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> BPETokenizer:
        """Return the tokenizer that `save` wrote; raise DataError if the content is not one."""
        library = _library()
        try:
            engine = library.Tokenizer.from_str(json.dumps(content))
        except Exception as error:  # the library raises bare Exceptions
            reason = str(error).rstrip(".")
            raise DataError(f"the tokenizers library refuses a BPE ({reason}); build it again.") from error
        tokenizer = cls(_canonical(engine))
        # Another normaliser, dropout or truncation would lose text or change ids from call to call, silently.
        if _settings(engine) != _settings(_untrained()):
            raise DataError("a tokenizer has other settings than the byte-level BPE by lines of poise; build it again.")
        vocabulary = engine.get_vocab()
        alphabet = set(library.pre_tokenizers.ByteLevel.alphabet())
        # The library would drop a byte that it has no id for, also silently.
        if sorted(vocabulary.values()) != list(range(len(vocabulary))) or not alphabet <= vocabulary.keys():
            raise DataError(
                f"a BPE of {len(vocabulary)} ids has gaps in them or lacks some of the {BYTES} bytes; build it again."
            )
        return tokenizer

    @cached_property
    def vocab_size(self) -> int:
        """Return the number of ids: the 256 bytes and the merges."""
        return len(json.loads(self.definition)["model"]["vocab"])

    @cached_property
    def _engine(self) -> Any:
        return _library().Tokenizer.from_str(self.definition)

    def encode(self, text: str) -> Ids:
        """Return the ids of `text`, int32 of shape (tokens,); no text is unknown."""
        pieces = [np.array(self._engine.encode(block).ids, np.int32) for block in _encodable(line_blocks(text))]
        return np.concatenate(pieces) if pieces else np.empty(0, np.int32)

    def decode(self, ids: npt.ArrayLike | Tensor) -> str:
        """Return the text of `ids`, of shape (tokens,); bytes that are no whole character become U+FFFD.

        Raises DataError for an id out of range.
        """
        return str(self._engine.decode(checked_ids(ids, self.vocab_size).tolist(), skip_special_tokens=False))

    @property
    def content(self) -> str:
        """Return the JSON that `save` writes."""
        return self.definition

    def save(self, folder: Path) -> None:
        """Write tokenizer.json in `folder`, in the format of the `tokenizers` library."""
        write_tokenizer(folder, self.content)


def _library() -> ModuleType:
    try:
        import tokenizers
    except ImportError as error:
        raise DataError(
            "the tokenizer 'bpe' needs the package 'tokenizers', which is not installed; "
            "run pip install 'poise[train]'."
        ) from error
    return tokenizers


def _untrained() -> Any:
    """Return the library's tokenizer with the settings of poise and no vocabulary."""
    library = _library()
    engine = library.Tokenizer(library.models.BPE())
    engine.pre_tokenizer = library.pre_tokenizers.Sequence(
        [
            library.pre_tokenizers.Split("\n", behavior="merged_with_previous"),
            library.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    engine.decoder = library.decoders.ByteLevel()
    return engine


def _canonical(engine: Any) -> str:
    """Return the engine's definition in one spelling, so that equal tokenizers compare equal."""
    return json.dumps(json.loads(engine.to_str())) + "\n"


def _settings(engine: Any) -> dict[str, Any]:
    """Return the engine's definition without what training finds."""
    settings = json.loads(engine.to_str())
    settings["model"] = {key: value for key, value in settings["model"].items() if key not in ("vocab", "merges")}
    return settings


def _encodable(blocks: Iterable[str]) -> Iterator[str]:
    """Yield the blocks of a text; raise DataError at one that has no bytes."""
    position = 0
    for block in blocks:
        try:
            block.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"the text has the lone surrogate {block[error.start]!r} at position {position + error.start}, which "
                "has no bytes; pass text that is valid UTF-8."
            ) from error
        position += len(block)
        yield block
