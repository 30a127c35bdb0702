"""Sheets of pictures for the report: tiles in rows, label maps in colours, amounts as heat."""

from __future__ import annotations

import base64
import colorsys
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from poise.data import Normalise
from poise.tasks.pictures import png

GOLDEN = 0.61803398875  # turns of the colour circle between two classes: any few of them lie far apart
LARGEST = 280  # pixels of a tile's side
OVERLAID = 0.6  # part of an overlay that is the class's colour
BACKGROUND = "background"  # a class of that name leaves the picture as it is


def class_colours(names: Sequence[str]) -> list[tuple[float, float, float]]:
    """Return a colour for each class, red, green and blue in [0, 1]."""
    found = []
    for place in range(len(names)):
        value, saturation = (0.95, 0.75, 0.6)[place % 3], (0.85, 0.6)[place // 3 % 2]
        found.append(colorsys.hsv_to_rgb((0.58 + place * GOLDEN) % 1, saturation, value))
    return found


def hexadecimal(colour: Sequence[float]) -> str:
    """Return a colour as "#2b62c4"."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour)


def shown(picture: Tensor, normalise: Normalise) -> Tensor:
    """Return a normalised picture (C, H, W) as it was, (3, H, W) in [0, 1], of at most `LARGEST`; one channel is grey.

    Up to rounding: `normalise` is what had been done to it.
    """
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (normalise.mean, normalise.std))
    x = (picture.float().cpu() * std + mean).clamp(0, 1)
    return _fitted(x.expand(3, -1, -1), "area")


def overlay(picture: Tensor, labels: Tensor, names: Sequence[str]) -> Tensor:
    """Return a shown picture (3, H, W) under the colours of its classes (H, W); void and background stay clear."""
    colours = torch.tensor(class_colours(names))
    labels = _fitted(labels[None].float().cpu(), "nearest-exact")[0].long()
    clear = labels >= len(names)
    for place, name in enumerate(names):
        if name == BACKGROUND:
            clear |= labels == place
    painted = colours[labels.clamp_max(len(names) - 1)].permute(2, 0, 1)
    return torch.where(clear, picture, OVERLAID * painted + (1 - OVERLAID) * picture)


def heat(amounts: Tensor, low: float, high: float, size: Sequence[int]) -> Tensor:
    """Return amounts (h, w) above 0 as (3, H, W): black at `low`, over red and yellow to white at `high`, by logarithm.

    `size`: of the picture that they belong to; an amount is as large a square as it needs.
    """
    span = torch.log(torch.tensor(high / low)).clamp_min(1e-6)
    level = ((amounts.float().cpu().clamp_min(low) / low).log() / span).clamp(0, 1)
    colours = torch.stack([(3 * level).clamp(0, 1), (3 * level - 1).clamp(0, 1), (3 * level - 2).clamp(0, 1)])
    return _fitted(F.interpolate(colours[None], size=tuple(size), mode="nearest-exact")[0], "area")


def framed(tile: Tensor, colour: Sequence[float] = (1.0, 1.0, 1.0)) -> Tensor:
    """Return a tile (3, H, W) with a frame of a pixel around it."""
    frame = torch.tensor(colour).view(3, 1, 1).expand(3, tile.shape[1] + 2, tile.shape[2] + 2).clone()
    frame[:, 1:-1, 1:-1] = tile
    return frame


def sheet(rows: Sequence[Sequence[Tensor]]) -> str:
    """Return tiles of one size in rows as a PNG in base64; a short row ends in white."""
    longest = max(map(len, rows))
    blank = torch.ones_like(rows[0][0])
    whole = torch.cat([torch.cat([*row, *[blank] * (longest - len(row))], dim=2) for row in rows], dim=1)
    return base64.b64encode(png((whole.clamp(0, 1) * 255).round().to(torch.uint8))).decode("ascii")


def _fitted(x: Tensor, mode: str) -> Tensor:
    """Return (C, H, W) made smaller, so that neither side is longer than `LARGEST`."""
    factor = LARGEST / max(x.shape[1:])
    if factor >= 1:
        return x
    size = [max(1, round(side * factor)) for side in x.shape[1:]]
    return F.interpolate(x[None], size=size, mode=mode)[0]
