"""Cut a long text at line ends, so that it can be counted and encoded in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

BLOCK = 1 << 14  # characters: few enough that a block's words stay in cache as objects; BPE slows down beyond


def line_blocks(text: str, size: int = BLOCK) -> Iterator[str]:
    """Yield consecutive pieces of `text`, each but the last ending at a line feed after at least `size` characters.

    A line is never cut, so a text without line feeds is one piece.
    """
    start = 0
    while start < len(text):
        found = text.find("\n", start + size - 1)
        end = len(text) if found < 0 else found + 1
        yield text[start:end]
        start = end
