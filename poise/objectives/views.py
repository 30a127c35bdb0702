"""What the objectives ask of views: embeddings of the same samples, of one shape."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def check_views(name: str, views: Sequence[Tensor]) -> Tensor:
    """Return the first view, or raise ValueError: two or more (B, D) of one shape and kind are needed."""
    if len(views) < 2:
        raise ValueError(f"{name} compares views, and got {len(views)}; pass at least 2, each (B, D).")
    for view in views:
        if view.dim() != 2 or view.shape != views[0].shape or not view.is_floating_point():
            kinds = ", ".join(f"{str(v.dtype).removeprefix('torch.')} {tuple(v.shape)}" for v in views)
            raise ValueError(f"{name} compares embeddings of one shape (B, D), and got {kinds}; pass both alike.")
    return views[0]
