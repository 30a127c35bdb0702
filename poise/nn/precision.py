"""The precision in which a cell really computes, which autocast and the cell's own casts hide from its output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from poise.fixed_point.tree import tree_leaves

# Only these are looked for: a single mask or table of another dtype says nothing of the rest.
HALVES = (torch.bfloat16, torch.float16)


class HalvesSeen(TorchDispatchMode):
    """Watches the operations made within it for results in half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, operation: Callable[..., Any], types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        """Run the operation and look at what it returns."""
        out = operation(*arguments, **(options or {}))
        self.found |= {part.dtype for _, part in tree_leaves(out)} & set(HALVES)
        return out

    def narrowest(self, *dtypes: torch.dtype) -> torch.dtype:
        """Return the dtype with the widest spacing, of `dtypes` and of the halves seen."""
        return max((*dtypes, *self.found), key=lambda dtype: torch.finfo(dtype).eps)
