"""Cut a long text at line ends, so that it can be counted and encoded in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

BLOCK = 1 << 14  # characters: few enough that a block's words stay in cache as objects; BPE slows down beyond
LONG = 1 << 16  # characters of a line that is no line of prose: whole sets come as a single one
# Before a blank a line may be cut: no word reaches across it, and byte-level BPE joins it to what follows.
_END_OF_LONG = re.compile(r"\n|\S(?= )")


def pieces_of(text: str | Iterable[str]) -> Iterable[str]:
    """Return the pieces of a text that may be whole, and then is one."""
    return (text,) if isinstance(text, str) else text


def line_blocks(text: str | Iterable[str], size: int = BLOCK) -> Iterator[str]:
    """Yield the text anew in blocks, each but the last ending at a line feed after at least `size` characters.

    `text` is whole, or consecutive pieces that may be cut anywhere: at most one of them is held, and one block. A line
    is cut only where it makes a block of more than 65,536 characters, before the next blank that follows no other white
    space, which changes the ids of no tokenizer. A text with neither line feeds nor blanks is one block.
    """
    longest = max(size, LONG)
    held: list[str] = []
    length = 0
    for piece in pieces_of(text):
        start = 0
        while True:
            limit = start + max(longest - length, 0)
            last = piece.find("\n", start + max(size - length - 1, 0), limit)
            if last < 0 and (found := _END_OF_LONG.search(piece, limit)):
                last = found.start()
            if last < 0:
                break
            held.append(piece[start : last + 1])
            yield "".join(held)
            held, length, start = [], 0, last + 1
        held.append(piece[start:])
        length += len(piece) - start
    if length:
        yield "".join(held)
