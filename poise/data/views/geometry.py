"""Views by place: a cut brought to one size, a cut of one size, and the mirror image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.data.views.drawing import (
    attempts,
    below,
    check_pair,
    check_range,
    chosen,
    looked_up,
    per_sample,
    pictures,
    unit_pictures,
)
from poise.data.views.separable import bicubic_weights, separable

ATTEMPTS = 10  # cuts drawn before the largest allowed one in the middle is taken


def resized_crop(x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: int) -> Tensor:
    """Return the cut of each picture brought to size x size, bicubic and antialiased; may leave the range of `x`.

    `x` (B, C, H, W); the four say where each cut is, (B,) each.
    """
    rows = bicubic_weights(top, height, size, x.shape[2], x)
    columns = bicubic_weights(left, width, size, x.shape[3], x)
    return separable(x, rows, columns)


@dataclass(frozen=True)
class RandomResizedCrop:
    """A cut of a random part of the area and of random proportions, brought to size x size (Szegedy et al. 2015).

    `scale`: of the area, uniform. `ratio`: width to height, uniform in its logarithm. Of ten cuts drawn for a sample
    the first that fits is taken; where none does, the largest in the middle within `ratio`. Clamped to [0, 1], as
    bicubic interpolation overshoots. `view(x, generator)` takes (B, C, H, W) and returns (B, C, size, size).
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        check_range("RandomResizedCrop", "size", self.size, 1)
        check_pair("RandomResizedCrop", "scale", self.scale, 1e-6, 1.0)
        check_pair("RandomResizedCrop", "ratio", self.ratio, 1e-6)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return a cut of each picture."""
        x = unit_pictures("RandomResizedCrop", x)
        return resized_crop(x, *self.draw(x, generator), self.size).clamp(0, 1)

    def draw(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return top, left, height and width of a cut of each picture, (B,) int64 each."""
        batch, _, tall, wide = x.shape
        area = tall * wide * attempts(*self.scale, batch, ATTEMPTS, generator, x)
        logarithms = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = attempts(*logarithms, batch, ATTEMPTS, generator, x).exp()
        widths, heights = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
        fits = (widths > 0) & (widths <= wide) & (heights > 0) & (heights <= tall)
        first = fits.int().argmax(dim=1, keepdim=True)  # of equal ones the first
        any_fits = fits.any(dim=1)
        height, width = self._largest(tall, wide)
        heights = torch.where(any_fits, heights.gather(1, first).squeeze(1), height)
        widths = torch.where(any_fits, widths.gather(1, first).squeeze(1), width)
        top, left = below(tall - heights + 1, generator), below(wide - widths + 1, generator)
        top = torch.where(any_fits, top, (tall - height) // 2)
        left = torch.where(any_fits, left, (wide - width) // 2)
        return top, left, heights, widths

    def _largest(self, tall: int, wide: int) -> tuple[int, int]:
        if wide / tall < self.ratio[0]:
            return max(1, min(tall, round(wide / self.ratio[0]))), wide
        if wide / tall > self.ratio[1]:
            return tall, max(1, min(wide, round(tall * self.ratio[1])))
        return tall, wide


@dataclass(frozen=True)
class RandomCrop:
    """A cut at a random place of the picture with `padding` zeros added on each side.

    `size`: a height and a width, or the side of a square. With (32, 4) what ResNets are trained with on CIFAR (He et
    al. 2016, section 4.2), beside `HorizontalFlip`. `view(x, generator)` takes (B, C, H, W) and returns (B, C, *size).
    """

    size: int | tuple[int, int]
    padding: int = 0

    def __post_init__(self) -> None:
        for length in self.sizes:
            check_range("RandomCrop", "size", length, 1)
        check_range("RandomCrop", "padding", self.padding, 0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return a cut of each picture."""
        x = pictures("RandomCrop", x)
        places = []
        for size, whole in zip(self.sizes, x.shape[2:], strict=True):
            left_over = whole + 2 * self.padding - size
            if left_over < 0:
                raise ValueError(
                    f"RandomCrop(size={self.size}, padding={self.padding}) is larger than a padded picture of "
                    f"{x.shape[2]}x{x.shape[3]}; pass a smaller size."
                )
            first = below(torch.full((len(x), 1), left_over + 1, device=x.device), generator) - self.padding
            places.append(first + torch.arange(size, device=x.device))  # (B, size)
        rows, columns = places
        return looked_up(x, rows, columns, outside=0.0)

    @property
    def sizes(self) -> tuple[int, int]:
        """Height and width of the cut."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)


@dataclass(frozen=True)
class HorizontalFlip:
    """The mirror image, left for right, of samples chosen with this probability."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        check_range("HorizontalFlip", "probability", self.probability, 0, 1)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return each picture (B, C, H, W) or its mirror image."""
        x = pictures("HorizontalFlip", x)
        return torch.where(per_sample(self.draw(x, generator), x), x.flip(3), x)

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return which samples are chosen, (B,)."""
        return chosen(self.probability, len(x), generator, x)
