"""A piece of a longer text, and what is remembered of the text before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """What a causal cell reads where a text goes on: its input, and what it remembers of the positions before."""

    x: Tensor  # (batch, length, d_model)
    past: Any = None  # what is remembered of the positions before, or None at the start of a text
