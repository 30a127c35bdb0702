"""Views by colour, as torchvision and pillow define them, with a strength for each sample.

The functions take pictures (B, 3, H, W) in [0, 1] and one number a sample, (B,), and stay in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.data.views.drawing import (
    check_range,
    chosen,
    orders,
    per_sample,
    pictures,
    uniform,
    unit_pictures,
)

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: what red, green and blue add to brightness


def luma(x: Tensor) -> Tensor:
    """Return the brightness of each pixel, (B, 1, H, W)."""
    return (x * x.new_tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Return the pictures so many times as bright."""
    return (x * per_sample(factor, x)).clamp(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Return the pictures with so many times the distance from their mean brightness."""
    return _blend(x, luma(x).mean(dim=(1, 2, 3), keepdim=True), factor)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Return the pictures with so many times the distance of each pixel from its own grey."""
    return _blend(x, luma(x), factor)


def adjust_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Return the pictures with hues turned by this part of the circle; value and saturation (HSV) stay."""
    value, lowest = x.amax(dim=1), x.amin(dim=1)  # (B, H, W)
    chroma = value - lowest
    red, green, blue = x.unbind(dim=1)
    divisor = torch.where(chroma > 0, chroma, 1.0)
    sixths = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sixths = sixths + 6 * per_sample(shift, sixths)
    # Each channel is the value less a part of the chroma that depends on how far its own hue is.
    turned = torch.stack([sixths + 5, sixths + 3, sixths + 1], dim=1).remainder(6)
    part = torch.minimum(turned, 4 - turned).clamp(0, 1)
    return (value.unsqueeze(1) - chroma.unsqueeze(1) * part).clamp(0, 1)


ADJUSTMENTS = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


@dataclass(frozen=True)
class ColourJitter:
    """Brightness, contrast, saturation and hue changed at random, in an order of each sample's own.

    The first three are factors uniform in [max(0, 1 - strength), 1 + strength]; hue turns by a part of the circle
    uniform in [-hue, hue]. Samples are chosen with this probability; the others stay.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    probability: float = 0.8

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            check_range("ColourJitter", name, getattr(self, name), 0)
        check_range("ColourJitter", "hue", self.hue, 0, 0.5)
        check_range("ColourJitter", "probability", self.probability, 0, 1)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return each picture (B, 3, H, W) with colours of its own."""
        x = unit_pictures("ColourJitter", x, channels=3)
        strengths, order, picked = self.draw(x, generator)
        changed = x.clone()
        for turn in range(len(ADJUSTMENTS)):
            for number, adjust in enumerate(ADJUSTMENTS):
                rows = (picked & (order[:, turn] == number)).nonzero().squeeze(1)
                if len(rows):
                    changed[rows] = adjust(changed[rows], strengths[rows, number])
        return changed

    def draw(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return the strengths (B, 4) and their order (B, 4), and which samples are chosen (B,)."""
        batch = len(x)
        factors = [
            uniform(max(0.0, 1 - strength), 1 + strength, batch, generator, x)
            for strength in (self.brightness, self.contrast, self.saturation)
        ]
        shift = uniform(-self.hue, self.hue, batch, generator, x)
        order = orders(len(ADJUSTMENTS), batch, generator, x)
        return torch.stack([*factors, shift], dim=1), order, chosen(self.probability, batch, generator, x)


@dataclass(frozen=True)
class Grayscale:
    """The brightness alone, in all three channels, of samples chosen with this probability."""

    probability: float = 0.2

    def __post_init__(self) -> None:
        check_range("Grayscale", "probability", self.probability, 0, 1)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return each picture (B, 3, H, W), or its brightness."""
        x = pictures("Grayscale", x, channels=3)
        return torch.where(per_sample(chosen(self.probability, len(x), generator, x), x), luma(x), x)


@dataclass(frozen=True)
class Solarise:
    """Values from the threshold on turned to 1 - value, in samples chosen with this probability."""

    threshold: float = 128 / 255
    probability: float = 0.2

    def __post_init__(self) -> None:
        check_range("Solarise", "threshold", self.threshold, 0, 1)
        check_range("Solarise", "probability", self.probability, 0, 1)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return each picture (B, C, H, W), or its solarised form."""
        x = pictures("Solarise", x)
        picked = per_sample(chosen(self.probability, len(x), generator, x), x)
        return torch.where(picked & (x >= self.threshold), 1 - x, x)


@dataclass(frozen=True)
class Normalise:
    """(x - mean) / std, a number for each channel; draws nothing."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean or min(self.std) <= 0:
            raise ValueError(
                f"Normalise got mean={self.mean!r} and std={self.std!r}; pass one of each for a channel, std above 0."
            )

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the pictures (B, C, H, W) normalised."""
        x = pictures("Normalise", x, channels=len(self.mean))
        return (x - x.new_tensor(self.mean).view(1, -1, 1, 1)) / x.new_tensor(self.std).view(1, -1, 1, 1)


def _blend(x: Tensor, towards: Tensor, factor: Tensor) -> Tensor:
    factor = per_sample(factor, x)
    return (factor * x + (1 - factor) * towards).clamp(0, 1)
