"""What every tokenizer offers, and the two things that all of them do alike: check ids and write their file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from poise.data.errors import DataError
from poise.data.whole_files import written_whole

TOKENIZER_FILE = "tokenizer.json"

Ids = npt.NDArray[np.int32]  # 32 bits hold every vocabulary and keep a token file half the size of int64


class Tokenizer(Protocol):
    """A fixed vocabulary with a way from text to ids and back; a value that can be compared and pickled."""

    @property
    def kind(self) -> str:
        """Return the name under which `build_tokenizer` knows it."""
        ...

    @property
    def vocab_size(self) -> int:
        """Return the number of ids; they run from 0 to one less."""
        ...

    def encode(self, text: str) -> Ids:
        """Return the ids of `text`, int32 of shape (tokens,); raise DataError for what the vocabulary lacks."""
        ...

    def decode(self, ids: npt.ArrayLike | Tensor) -> str:
        """Return the text of one sequence of ids of shape (tokens,); raise DataError for an id out of range."""
        ...

    @property
    def content(self) -> str:
        """Return the JSON that `save` writes, which decides every id."""
        ...

    def save(self, folder: Path) -> None:
        """Write the vocabulary to tokenizer.json in `folder`, which is made if need be."""
        ...


def checked_ids(ids: npt.ArrayLike | Tensor, vocab_size: int) -> npt.NDArray[Any]:
    """Return `ids` as an integer array of shape (tokens,); raise DataError if it is anything else or out of range."""
    array = ids.detach().cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
    if array.ndim != 1:
        raise DataError(f"ids to decode have shape {array.shape}; pass one sequence, of shape (tokens,).")
    if array.size == 0:
        return array.astype(np.int64)
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"ids to decode are {array.dtype}; pass integers.")
    outside = array[(array < 0) | (array >= vocab_size)]
    if outside.size:
        raise DataError(f"the id {outside[0]} is outside the vocabulary of {vocab_size}; pass 0 to {vocab_size - 1}.")
    return array


def write_tokenizer(folder: Path, content: str) -> None:
    """Write tokenizer.json whole or not at all; raise DataError if the operating system refuses."""
    with written_whole(Path(folder) / TOKENIZER_FILE, "check the folder and its permissions") as file:
        file.write(content.encode())
