"""Tokenizers by name: built from a text, or loaded from the folder of a run."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from poise.data.bpe import BPETokenizer
from poise.data.characters import CharTokenizer
from poise.data.errors import DataError
from poise.data.lines import pieces_of
from poise.data.tokenizer_base import TOKENIZER_FILE, Tokenizer
from poise.data.words import WordTokenizer

TokenizerKind = Literal["char", "bpe", "word"]


def build_tokenizer(kind: TokenizerKind, text: str | Iterable[str], vocab_size: int | None = None) -> Tokenizer:
    """Build the tokenizer `kind` from `text`: its characters, byte-pair merges trained on it, or its words.

    The text is whole, or in pieces that are cut anywhere and read once, so that it need not lie in memory.
    `vocab_size` bounds the vocabulary of bpe (default 4,096) and word (default: every word); characters have no such
    choice. A character tokenizer refuses characters that it was not built from, so give it all the text that it will
    meet (training and validation); words and bytes need the training text only.

    Raises DataError for an unknown kind, an empty text or a `vocab_size` that cannot be.
    """
    kinds = get_args(TokenizerKind)
    if kind not in kinds:
        nearest = next(iter(difflib.get_close_matches(str(kind), kinds, n=1, cutoff=0.4)), None)
        hint = f"perhaps you meant {nearest!r}" if nearest else "pass one of these"
        raise DataError(f"there is no tokenizer {kind!r} among {', '.join(kinds)}; {hint}.")
    pieces = iter(pieces_of(text))
    first = next(filter(None, pieces), None)
    if first is None:
        raise DataError(f"the text to build the tokenizer {kind!r} from has 0 characters; pass a text.")
    text = itertools.chain((first,), pieces)
    if kind == "word":
        return WordTokenizer.from_text(text, vocab_size)
    if kind == "bpe":
        return BPETokenizer.from_text(text, vocab_size)
    if vocab_size is not None:
        raise DataError(
            f"vocab_size={vocab_size} does not apply to the tokenizer 'char', whose vocabulary is the characters of "
            "the text; leave it out, or use 'bpe' or 'word'."
        )
    return CharTokenizer.from_text(text)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer that was saved in `folder` from tokenizer.json, which is data and runs no code.

    Raises DataError if the file is missing, unreadable or damaged.
    """
    path = Path(folder) / TOKENIZER_FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read the tokenizer {str(path)!r} ({error.strerror or error}); pass the folder of a run."
        ) from error
    return parse_tokenizer(data, path)


def parse_tokenizer(data: bytes, path: Path) -> Tokenizer:
    """Return the tokenizer whose `content` is in these bytes, read from `path`; raise DataError if they are damaged."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not JSON: {error}") from error
    if not isinstance(content, dict):
        raise _damaged(path, f"a JSON {type(content).__name__}, not an object")
    try:
        if content.get("kind") == CharTokenizer.kind:
            return CharTokenizer.from_dict(content)
        if content.get("kind") == WordTokenizer.kind:
            return WordTokenizer.from_dict(content)
        if "model" in content:  # the format of the `tokenizers` library, which has no place for a kind
            return BPETokenizer.from_dict(content)
    except DataError as error:
        if isinstance(error.__cause__, ImportError):  # nothing is wrong with the file
            raise
        raise _damaged(path, str(error).rstrip(".")) from error
    raise _damaged(path, f"its kind is {content.get('kind')!r}")


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{str(path)!r} is no tokenizer of poise ({reason}); restore it or build the run again.")
