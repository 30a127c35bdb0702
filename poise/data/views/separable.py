"""Pictures resampled or blurred by one matrix for the rows and one for the columns of each."""

from __future__ import annotations

import torch
from torch import Tensor


def separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return rows @ x @ columns^T for each sample: `x` (B, C, H, W), `rows` (B, h, H), `columns` (B, w, W)."""
    batch, channels, height, width = x.shape
    along = torch.bmm(x.reshape(batch, channels * height, width), columns.transpose(1, 2))  # (B, C H, w)
    return torch.matmul(rows.unsqueeze(1), along.view(batch, channels, height, columns.shape[1]))  # (B, C, h, w)


def bicubic_weights(start: Tensor, length: Tensor, size: int, whole: int, like: Tensor, beyond: bool = False) -> Tensor:
    """Return the matrices (B, size, whole) that bring `length` places from `start` on, both (B,), to `size`.

    Keys' cubic convolution with a = -1/2 ("Cubic convolution interpolation for digital image processing", 1981),
    widened by the scale where it shrinks, so that nothing aliases. Only places inside the cut are looked at, and the
    weights of each output sum to 1: what pillow does to a picture that was cropped before. With `beyond` all places
    are looked at, as in a picture that is cropped after; outputs outside the picture have weights that mean nothing.
    """
    start, length = (place.to(like).view(-1, 1, 1) for place in (start, length))
    scale = length / size  # (B, 1, 1)
    outputs = torch.arange(size, device=like.device, dtype=like.dtype).view(1, -1, 1) + 0.5
    inputs = torch.arange(whole, device=like.device, dtype=like.dtype).view(1, 1, -1) + 0.5
    centre = start + outputs * scale
    distance = ((inputs - centre) / scale.clamp_min(1)).abs()
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    if not beyond:
        weights = torch.where((inputs > start) & (inputs < start + length), weights, 0.0)
    return weights / weights.sum(dim=2, keepdim=True)


def gaussian_weights(sigma: Tensor, whole: int, truncate: float = 4.0) -> Tensor:
    """Return the matrices (B, whole, whole) that blur with each standard deviation of `sigma` (B,), in pixels.

    A kernel reaches to `truncate` standard deviations, rounded; beyond the border the outermost pixel goes on.
    """
    reach = (truncate * sigma + 0.5).floor()  # (B,)
    widest = int(reach.max())
    offsets = torch.arange(-widest, widest + 1, device=sigma.device)
    inside = offsets.abs() <= reach.unsqueeze(1)
    kernel = torch.where(inside, torch.exp(-0.5 * (offsets / sigma.unsqueeze(1)) ** 2), 0.0)  # (B, 2 widest + 1)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    places = torch.arange(whole, device=sigma.device)
    looked_at = (places.unsqueeze(1) + offsets).clamp(0, whole - 1)  # (whole, 2 widest + 1)
    batch, shape = len(sigma), looked_at.shape
    weights = torch.zeros(batch, whole, whole, device=sigma.device, dtype=sigma.dtype)
    return weights.scatter_add_(2, looked_at.expand(batch, *shape), kernel.unsqueeze(1).expand(batch, *shape))
