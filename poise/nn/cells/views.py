"""Several views of one batch in one solve, each with batch statistics of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Views = Tensor | tuple[Tensor, ...]  # one batch, or several that are solved together


def each_view(module: nn.Module, views: Views) -> Tensor:
    """Return what a module makes of each view (B, ...) by itself, one after another along the batch.

    Batch norm in the module normalises each view by its own statistics and counts each for its running ones, exactly as
    if the module were called once a view.
    """
    return module(views) if isinstance(views, Tensor) else torch.cat([module(view) for view in views])
