"""Noise that is drawn once a solve."""

from __future__ import annotations

import torch
from torch import Tensor

from poise.fixed_point.options import check_kind


def dropout_mask(like: Tensor, p: float, generator: torch.Generator | None = None) -> Tensor:
    """Return a dropout mask shaped like a tensor: 0 with probability p, else 1 / (1 - p).

    Draw it in a cell's `inject` and pass it on in the context: every evaluation of the solve then sees one mask
    (variational dropout, Gal and Ghahramani 2016), without which there is no fixed point, and the mask stays with its
    sample when others leave the batch. A size of 1 in `like` shares the mask along that dimension, as in
    `dropout_mask(x[:, :, :1], 0.1)` for one mask at all positions of x (batch, channels, length). `generator`: on the
    tensor's device (default: PyTorch's own).

    >>> def inject(self, x):
    ...     return {"x": self.u(x), "mask": dropout_mask(x, self.p if self.training else 0.0)}
    """
    check_kind("dropout_mask", "p", p, "float")
    if not 0 <= p < 1:
        raise ValueError(f"dropout_mask(p={p}) is no probability below 1; pass one in [0, 1).")
    if p == 0:
        return torch.ones_like(like, requires_grad=False)
    return torch.empty_like(like, requires_grad=False).bernoulli_(1 - p, generator=generator).div_(1 - p)
