"""The tokens of a text: in memory where it is short, else in files that are built once and mapped into memory."""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poise.data.lines import line_blocks
from poise.data.sources import cache_folder, unreadable
from poise.data.text import Text, TextSplits
from poise.data.text_files import CHUNK, TextFiles
from poise.data.tokenizer import TokenizerKind, build_tokenizer, parse_tokenizer
from poise.data.tokenizer_base import Ids, Tokenizer
from poise.data.whole_files import PARTIAL, written_whole

FORMAT = "poise tokens 1"  # part of every name: files of another format are not found
DIGEST = 16  # bytes at the end of a token file: a digest of all before them
ABANDONED = 24 * 3600  # seconds after which a half-written file has no writer any more


def fit_tokenizer(text: Text, kind: TokenizerKind, vocab_size: int | None = None) -> Tokenizer:
    """Return the tokenizer `kind` of a text: char of every split, so that none has unknown characters, else of train.

    `vocab_size` bounds the vocabulary of bpe and word. That of a text in files is kept beside its token files.

    Raises DataError as `build_tokenizer` does, or if the cache folder cannot be written.
    """
    splits, size = (tuple(text.parts), None) if kind == "char" else (("train",), vocab_size)
    if isinstance(text, TextSplits):
        return build_tokenizer(kind, [text.parts[split] for split in splits], size)
    path = cache_folder() / f"{_digest(kind, size, *(text.parts[split].identity for split in splits))}.tokenizer"
    if _intact(path):
        return parse_tokenizer(_mapped(path).tobytes(), path)
    tokenizer = build_tokenizer(kind, text.pieces(f"building the vocabulary of {text.name}", *splits), size)
    _write(path, [tokenizer.content.encode()])
    return tokenizer


def tokenise(text: Text, tokenizer: Tokenizer) -> dict[str, Tensor]:
    """Return the ids of every split, integers of shape (tokens,): int32 in memory where the text is.

    Those of a text in files are mapped, read-only, from token files in the cache folder ($POISE_CACHE, else
    $XDG_CACHE_HOME/poise/tokens, else ~/.cache/poise/tokens), as the narrowest of uint8, uint16 and int32 that holds
    the vocabulary. A token file is named by the digest of the text's file, its part of it and the tokenizer; where it
    is missing or damaged, it is built, in bounded memory. Processes that build one at once each write their own, and
    the last one stays.

    Raises DataError for characters that the vocabulary lacks, or if a file cannot be read or written.
    """
    if isinstance(text, TextSplits):
        return {split: torch.from_numpy(tokenizer.encode(part)) for split, part in text.parts.items()}
    return {split: _tokens(text, split, tokenizer) for split in text.parts}


def encoded(tokenizer: Tokenizer, pieces: Iterable[str]) -> Iterator[Ids]:
    """Yield the ids of a text that comes in pieces, cut anywhere: those that `encode` gives of the whole."""
    # A character stands for itself wherever the text is cut; anything else is cut between lines.
    return map(tokenizer.encode, pieces if tokenizer.kind == "char" else line_blocks(pieces))


def _tokens(text: TextFiles, split: str, tokenizer: Tokenizer) -> Tensor:
    dtype = np.dtype(next(kind for kind in (np.uint8, np.uint16, np.int32) if _holds(kind, tokenizer.vocab_size)))
    name = _digest(text.parts[split].identity, hashlib.blake2b(tokenizer.content.encode()).hexdigest(), dtype.str)
    path = cache_folder() / f"{name}.tokens"
    if not _intact(path):
        ids = encoded(tokenizer, text.pieces(f"encoding {split} of {text.name}", split))
        _write(path, (piece.astype(dtype).tobytes() for piece in ids))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # as it should be
        return torch.from_numpy(_mapped(path).view(dtype))


def _write(path: Path, content: Iterable[bytes]) -> None:
    """Write a file of the cache: the content and its digest."""
    _sweep(path.parent)
    digest = hashlib.blake2b(digest_size=DIGEST)
    with written_whole(path, "make room, or set POISE_CACHE to a folder with more") as file:
        for piece in content:
            digest.update(piece)
            file.write(piece)
        file.write(digest.digest())


def _mapped(path: Path) -> npt.NDArray[np.uint8]:
    """Return the content of a file of the cache, mapped read-only."""
    try:
        return np.memmap(path, np.uint8, "r")[:-DIGEST]
    except (OSError, ValueError) as error:  # removed since it was looked at
        raise unreadable(path, error) from error


def _intact(path: Path) -> bool:
    """Return whether a file of the cache is there and is what was written; it is read through, not mapped."""
    digest = hashlib.blake2b(digest_size=DIGEST)
    try:
        with path.open("rb") as file:
            left = os.fstat(file.fileno()).st_size - DIGEST
            while left > 0 and (chunk := file.read(min(CHUNK, left))):
                digest.update(chunk)
                left -= len(chunk)
            return left == 0 and file.read() == digest.digest()
    except OSError:
        return False


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed have left half-written."""
    with suppress(OSError):
        for partial in folder.glob(f"*{PARTIAL}"):
            if time.time() - partial.stat().st_mtime > ABANDONED:
                partial.unlink()


def _holds(kind: type[np.integer[Any]], vocab_size: int) -> bool:
    return vocab_size - 1 <= np.iinfo(kind).max


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(json.dumps([FORMAT, *parts]).encode(), digest_size=16).hexdigest()
