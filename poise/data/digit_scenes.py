"""Scenes of handwritten digits with a class at each pixel and one of the whole: a set for a minute's training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from poise.data.digits import SIDE, digits
from poise.data.errors import DataError
from poise.data.samples import Samples, SampleSplits

VALID_DIGITS = 250  # of those to train on, the last ones; no digit is in two parts
INK = 0.25  # from which on a pixel belongs to its digit: 4 of the 16 grey levels
ATTEMPTS = 20  # places drawn for a digit before it is left out
BACKGROUND = "background"


def digit_scenes(
    numbers: tuple[int, int, int] = (2000, 250, 500),
    side: int = 48,
    most: int = 5,
    noise: float = 0.08,
    seed: int = 0,
) -> SampleSplits[Tensor]:
    """Return scenes (N, 1, side, side) uint8 to train, validate and test on, as many as `numbers` says.

    Each has one large digit, 24 pixels high, and up to `most` - 1 smaller ones of 16 or 8, by repeating pixels; they do
    not touch. Place, brightness, a background of stripes and `noise` (its standard deviation, of a range of 1) are
    drawn anew for each. A pixel of ink has its digit's class, any other is background; the scene has the class of its
    large digit. The parts are made of different digits (`digits`, split by a fixed permutation). Raises DataError for
    numbers that make no scene, or where scikit-learn is not installed.
    """
    if min(numbers) < 1 or side < 3 * SIDE or most < 1 or noise < 0:
        raise DataError(
            f"numbers={numbers}, side={side}, most={most} and noise={noise} make no scene; pass at least 1 of each "
            f"part, {3 * SIDE} pixels, 1 digit and no negative noise."
        )
    found = digits()
    generator = torch.Generator().manual_seed(seed)
    kept = len(found.train) - VALID_DIGITS
    sources = (found.train.select(slice(kept)), found.train.select(slice(kept, None)), found.test)
    train, valid, test = (
        _scenes(source, number, side, most, noise, generator) for source, number in zip(sources, numbers, strict=True)
    )
    return SampleSplits(train, test, valid, source=f"{found.source}, in scenes of {side}x{side} with seed {seed}")


def _scenes(
    source: Samples[Tensor], number: int, side: int, most: int, noise: float, generator: torch.Generator
) -> Samples[Tensor]:
    # Each digit is the large one equally often, but for a remainder.
    rounds = -(-number // len(source))
    large = torch.cat([torch.randperm(len(source), generator=generator) for _ in range(rounds)])[:number]
    drawn = [_scene(source, int(place), side, most, generator) for place in large]
    pictures = torch.stack([picture for picture, _ in drawn]).unsqueeze(1)
    pictures = pictures + noise * torch.randn(pictures.shape, generator=generator)
    return Samples(
        (pictures.clamp(0, 1) * 255).round().to(torch.uint8),
        torch.stack([labels for _, labels in drawn]),
        (*source.class_names, BACKGROUND),
        source.labels[large],
        source.class_names,
    )


def _scene(
    source: Samples[Tensor], large: int, side: int, most: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the picture, (side, side), and the class of each of its pixels, of that shape in uint8."""
    picture = _stripes(side, generator)
    labels = torch.full((side, side), len(source.class_names), dtype=torch.uint8)
    taken = torch.zeros(side, side, dtype=torch.bool)
    others = _integer(most, generator)
    chosen = [large, *(_integer(len(source), generator) for _ in range(others))]
    scales = [3, *(1 + _integer(2, generator) for _ in range(others))]
    for place, scale in zip(chosen, scales, strict=True):
        size = scale * SIDE
        for _ in range(ATTEMPTS):
            top, left = (_integer(side - size + 1, generator) for _ in range(2))
            box = slice(top, top + size), slice(left, left + size)
            if not taken[box].any():
                ink = source.inputs[place, 0].repeat_interleave(scale, 0).repeat_interleave(scale, 1)
                gain = 0.55 + 0.45 * _number(generator)
                picture[box] = picture[box] * (1 - ink) + gain * ink
                labels[box][ink >= INK] = int(source.labels[place])
                taken[box] = True
                break
    return picture, labels


def _stripes(side: int, generator: torch.Generator) -> Tensor:
    """Return stripes of random direction, width and depth, from 0 to 0.4."""
    angle, turns, phase = math.pi * _number(generator), 1 + 5 * _number(generator), 2 * math.pi * _number(generator)
    level, depth = 0.1 + 0.2 * _number(generator), 0.1 * _number(generator)
    along = torch.arange(side) / side
    place = math.cos(angle) * along.view(-1, 1) + math.sin(angle) * along
    return level + depth * torch.sin(2 * math.pi * turns * place + phase)


def _number(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _integer(bound: int, generator: torch.Generator) -> int:
    return int(torch.randint(bound, (), generator=generator))
