"""Long texts, solved a segment at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """What a causal cell reads where a text goes on: its input, and what it remembers of the positions before."""

    x: Tensor  # (batch, length, d_model)
    past: Any = None  # what the cell's `remember` returned, or None at the start of a text
