"""Dual tensors: numbers that carry a tangent, in `torch.autograd.forward_ad` and `torch.func.jvp` alike."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor


def in_dual_level() -> bool:
    """Whether tensors may carry tangents now."""
    return forward_ad._current_level >= 0 and torch._C._is_fwd_grad_enabled()


def carried(carry: bool) -> AbstractContextManager[None]:
    """Let operations carry tangents on, or not."""
    return forward_ad._set_fwd_grad_enabled(carry)


def tangent_of(x: Tensor) -> Tensor | None:
    """Return the tangent that a tensor carries, or None."""
    return forward_ad.unpack_dual(x).tangent


def with_tangent(x: Tensor, tangent: Tensor) -> Tensor:
    """Return `x` carrying the tangent."""
    return forward_ad.make_dual(x, tangent)
