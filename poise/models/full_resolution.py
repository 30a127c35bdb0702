"""Segmentation of whole pictures by a network that sees windows of them, and at several scales with mirror images.

A network is any callable that takes pictures (B, C, h, w) and returns logits (B, K, h, w).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Segmenter = Callable[[Tensor], Tensor]


@torch.no_grad()
def sliding_logits(
    network: Segmenter, pictures: Tensor, window: tuple[int, int], overlap: float = 1 / 3, at_once: int = 8
) -> Tensor:
    """Return the logits (B, K, H, W) of pictures (B, C, H, W), averaged over windows that cover them.

    `window` (h, w): where a picture is smaller, the window is. `overlap`: the least part of a window that the next one
    sees again, in [0, 1). `at_once`: windows in one call of the network, whatever the batch. Beyond these only the
    result is held. One window that covers the picture gives what the network gives. Raises ValueError for a window that
    is none, and for a network that returns another height or width.
    """
    _check(pictures)
    if min(window) < 1 or not 0 <= overlap < 1 or at_once < 1:
        raise ValueError(
            f"window={window}, overlap={overlap} and at_once={at_once} cover no picture; pass at least 1 pixel, an "
            "overlap from 0 to below 1 and at least 1 at once."
        )
    batch, _, height, width = pictures.shape
    tall, wide = min(window[0], height), min(window[1], width)
    tops, lefts = _starts(height, tall, overlap), _starts(width, wide, overlap)
    places = [(sample, top, left) for sample in range(batch) for top in tops for left in lefts]
    total: Tensor | None = None
    for first in range(0, len(places), at_once):
        seen = places[first : first + at_once]
        cuts = torch.stack([pictures[sample, :, top : top + tall, left : left + wide] for sample, top, left in seen])
        logits = _logits(network, cuts)
        if total is None:
            total = logits.new_zeros(batch, logits.shape[1], height, width, dtype=_precision(logits))
        for (sample, top, left), part in zip(seen, logits, strict=True):
            total[sample, :, top : top + tall, left : left + wide] += part
    if total is None:
        return _logits(network, pictures)
    # How many windows saw a pixel is a product of rows and columns.
    times = _times(tops, tall, height, total).view(-1, 1) * _times(lefts, wide, width, total)
    return total.div_(times)


@torch.no_grad()
def multiscale_probabilities(
    network: Segmenter,
    pictures: Tensor,
    scales: Sequence[float] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
    flip: bool = True,
    window: tuple[int, int] | None = None,
    overlap: float = 1 / 3,
    at_once: int = 8,
) -> Tensor:
    """Return the probabilities (B, K, H, W) of pictures (B, C, H, W), averaged over scales and mirror images.

    At each scale the picture is resampled (bilinear, antialiased), segmented whole or by `sliding_logits` where a
    `window` is given, and the logits are brought back (bilinear) before the softmax. With `flip` its mirror image is
    segmented as well, which makes the answer the same for both. Only the result and one scale are held at a time.
    """
    _check(pictures)
    height, width = pictures.shape[2:]
    sizes = [scaled_size((height, width), scale) for scale in scales]
    if not sizes or min(min(size) for size in sizes) < 1:
        raise ValueError(f"scales={tuple(scales)} of {height}x{width} leave no picture; pass at least one, and larger.")

    def logits(given: Tensor) -> Tensor:
        if window is None:
            return _logits(network, given)
        return sliding_logits(network, given, window, overlap, at_once)

    total: Tensor | None = None
    for size in sizes:
        scaled = pictures if size == (height, width) else _resized(pictures, size)
        for mirrored in (False, True) if flip else (False,):
            found = logits(scaled.flip(3)).flip(3) if mirrored else logits(scaled)
            found = found.to(_precision(found))
            probabilities = _resized(found, (height, width)).softmax(dim=1)
            total = probabilities if total is None else total.add_(probabilities)
    assert total is not None
    return total.div_(len(sizes) * (2 if flip else 1))


def scaled_size(size: Sequence[int], scale: float) -> tuple[int, int]:
    """Return the height and width of a picture at a scale; a small scale may leave 0."""
    height, width = size
    return round(height * scale), round(width * scale)


def _starts(length: int, window: int, overlap: float) -> list[int]:
    """Return where windows begin: the fewest, evenly spread, that overlap as much; the last ends with the picture."""
    step = max(1, int(window * (1 - overlap)))
    steps = -(-(length - window) // step)
    return [round(number * (length - window) / steps) for number in range(steps + 1)] if steps else [0]


def _times(starts: list[int], window: int, length: int, like: Tensor) -> Tensor:
    times = like.new_zeros(length)
    for start in starts:
        times[start : start + window] += 1
    return times


def _logits(network: Segmenter, pictures: Tensor) -> Tensor:
    logits = network(pictures)
    expected = (len(pictures), *pictures.shape[2:])
    if logits.dim() != 4 or (len(logits), *logits.shape[2:]) != expected:
        raise ValueError(
            f"the network returned shape {tuple(logits.shape)} for pictures of shape {tuple(pictures.shape)}; let it "
            "return logits (B, K, h, w) of their height and width."
        )
    return logits


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)


def _precision(logits: Tensor) -> torch.dtype:
    """Return what sums are kept in: half precision would lose what it adds."""
    return logits.dtype if logits.dtype == torch.float64 else torch.float32


def _check(pictures: Tensor) -> None:
    if pictures.dim() != 4 or not pictures.is_floating_point():
        raise ValueError(
            f"pictures are {pictures.dtype} of shape {tuple(pictures.shape)}; pass floating point (B, C, H, W)."
        )
