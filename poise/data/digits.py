"""Handwritten digits that come with scikit-learn, placed at random on a canvas: a set for a minute's training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from poise.data.errors import DataError
from poise.data.samples import Samples, SampleSplits

TRAIN = 1297  # of 1,797; the other 500 are for the test
SIDE = 8


def digits() -> SampleSplits[Tensor]:
    """Return 1,297 and 500 pictures (N, 1, 8, 8) in [0, 1] of the UCI optical digits, split by a fixed permutation.

    Raises DataError where scikit-learn, which brings them, is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("the digits come with scikit-learn, which is missing; pip install 'poise[train]'.") from error
    found = load_digits()
    order = np.random.RandomState(0).permutation(len(found.target))
    pictures = torch.from_numpy(found.data[order]).float().view(-1, 1, SIDE, SIDE) / 16
    labels = torch.from_numpy(found.target[order]).long()
    whole = Samples(pictures, labels, tuple(str(digit) for digit in range(10)))
    train, test = whole.select(slice(None, TRAIN)), whole.select(slice(TRAIN, None))
    return SampleSplits(train, test, source="the optical digits of scikit-learn")


@dataclass(frozen=True)
class Placed:
    """A view of a small picture: at a place of its own on a zero canvas, brighter or darker, with noise.

    `side`: of the canvas. `gain`: the factor is uniform in 1 - gain, 1 + gain. `noise`: its standard deviation. All is
    drawn for each sample: `view(x, generator)` takes (B, C, H, W) and returns (B, C, side, side).
    """

    side: int = 12
    gain: float = 0.2
    noise: float = 0.05

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return a view of each sample."""
        batch, channels, height, width = x.shape
        if max(height, width) > self.side:
            raise ValueError(f"Placed(side={self.side}) is smaller than a picture of {height}x{width}; pass more.")
        top = torch.randint(self.side - height + 1, (batch, 1, 1, 1), generator=generator)
        left = torch.randint(self.side - width + 1, (batch, 1, 1, 1), generator=generator)
        factor = 1 + self.gain * (2 * torch.rand(batch, 1, 1, 1, generator=generator) - 1)
        noise = torch.randn(batch, channels, self.side, self.side, generator=generator)
        # Every pixel of the canvas looks up where it lies in the picture; outside it is zero.
        rows = torch.arange(self.side).view(1, 1, -1, 1) - top
        columns = torch.arange(self.side).view(1, 1, 1, -1) - left
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        place = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
        looked_up = x.flatten(2).gather(2, place.flatten(2).expand(-1, channels, -1))
        canvas = torch.where(inside, looked_up.view(batch, channels, self.side, self.side), 0.0)
        return canvas * factor + self.noise * noise


def moved_digits(times: tuple[int, int] = (4, 2), side: int = 12, seed: int = 0) -> SampleSplits[Tensor]:
    """Return clean digits at random places of a canvas, each so many times in training and test: what a probe sees."""
    view, generator = Placed(side, gain=0.0, noise=0.0), torch.Generator().manual_seed(seed)
    found = digits()

    def placed(samples: Samples[Tensor], times: int) -> Samples[Tensor]:
        repeated = samples.select(torch.arange(len(samples)).repeat(times))
        return Samples(view(repeated.inputs, generator), repeated.labels, repeated.class_names)

    source = f"{found.source}, placed on {side}x{side} with seed {seed}"
    return SampleSplits(placed(found.train, times[0]), placed(found.test, times[1]), source=source)
