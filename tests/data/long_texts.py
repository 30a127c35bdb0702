"""A text that counts as long, and how it is opened: for the tests of token ids and of the files that hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from poise.data import TextFiles, open_text

TEXT = "".join(f"line {n}: ünd it goes,  on\tto {n * n}\r\n" for n in range(2000)) + "an end without end"


def opened(path: Path, **more: Any) -> TextFiles:
    """Open a text as a long one, however short it is."""
    text = open_text(path, in_memory=1, **more)
    assert isinstance(text, TextFiles)
    return text
