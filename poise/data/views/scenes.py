"""Views of a picture together with its label map: places change alike in both, colours in the picture alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.data.class_tables import VOID
from poise.data.views.drawing import (
    View,
    below,
    check_pair,
    check_range,
    label_maps,
    looked_up,
    per_sample,
    pictures,
    uniform,
    unit_pictures,
)
from poise.data.views.geometry import HorizontalFlip
from poise.data.views.separable import bicubic_weights, separable

SceneView = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class RandomScaledCrop:
    """Picture and label map made larger or smaller by one random factor, then cut to `size` (h, w) at a random place.

    `scale`: of the factor, uniform. Where the result is smaller than the cut, it lies at a random place in it; around
    it the picture is zero and the label `VOID`. Pictures are resampled bicubic and antialiased, and clamped to [0, 1];
    labels take the nearest pixel. `view(x, labels, generator)` takes (B, C, H, W) and (B, H, W) and returns
    (B, C, h, w) and (B, h, w).
    """

    size: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)

    def __post_init__(self) -> None:
        for length in self.size:
            check_range("RandomScaledCrop", "size", length, 1)
        check_pair("RandomScaledCrop", "scale", self.scale, 1e-6)

    def __call__(self, x: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return a cut of each picture and of its label map."""
        x = unit_pictures("RandomScaledCrop", x)
        labels = label_maps("RandomScaledCrop", labels, x)
        factor = uniform(*self.scale, len(x), generator, x)
        matrices, places = [], []
        for cut, whole in zip(self.size, x.shape[2:], strict=True):
            scaled = (whole * factor).round().clamp_min(1).long()  # (B,)
            # From 0 to what is left over, or as far before 0 as there is too little.
            first = (scaled - cut).clamp_max(0) + below((scaled - cut).abs() + 1, generator)
            matrices.append(bicubic_weights(first * whole / scaled, cut * whole / scaled, cut, whole, x, beyond=True))
            # The centre of a pixel of the cut lies in this one of the picture, in integers, as many fall on an edge.
            twice = 2 * (first.unsqueeze(1) + torch.arange(cut, device=x.device)) + 1  # (B, cut)
            places.append((twice * whole).div(2 * scaled.unsqueeze(1), rounding_mode="floor"))
        rows, columns = places
        outside = looked_up(torch.zeros_like(x[:, :1]), rows, columns, outside=1.0) > 0
        # Outside the picture there is nothing to weigh, and the weights may not be finite.
        made = torch.where(outside, 0.0, separable(x, *matrices)).clamp(0, 1)
        return made, looked_up(labels.unsqueeze(1), rows, columns, outside=VOID).squeeze(1)


@dataclass(frozen=True)
class SceneFlip:
    """The mirror image of picture and label map, left for right, of samples chosen with this probability."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        HorizontalFlip(self.probability)

    def __call__(self, x: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return each picture (B, C, H, W) and its label map (B, H, W), or both their mirror images."""
        x = pictures("SceneFlip", x)
        labels = label_maps("SceneFlip", labels, x)
        flipped = HorizontalFlip(self.probability).draw(x, generator)
        return (
            torch.where(per_sample(flipped, x), x.flip(3), x),
            torch.where(per_sample(flipped, labels), labels.flip(2), labels),
        )


@dataclass(frozen=True)
class ComposedScenes:
    """Views of pictures and label maps, then views of the pictures alone, all drawing from one generator."""

    geometric: tuple[SceneView, ...] = ()
    photometric: tuple[View, ...] = ()

    def __call__(self, x: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return a view of each picture (B, C, H, W) and of its label map (B, H, W)."""
        for both in self.geometric:
            x, labels = both(x, labels, generator)
        for view in self.photometric:
            x = view(x, generator)
        return x, labels
