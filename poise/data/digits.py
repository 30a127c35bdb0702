"""Handwritten digits that come with scikit-learn, placed at random on a canvas: a set for a minute's training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from poise.data.errors import DataError
from poise.data.samples import Samples, SampleSplits
from poise.data.views.placed import Placed

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


def moved_digits(times: tuple[int, int] = (4, 2), side: int = 12, seed: int = 0) -> SampleSplits[Tensor]:
    """Return clean digits at random places of a canvas, each so many times in training and test: what a probe sees."""
    view, generator = Placed(side, gain=0.0, noise=0.0), torch.Generator().manual_seed(seed)
    found = digits()

    def placed(samples: Samples[Tensor], times: int) -> Samples[Tensor]:
        repeated = samples.select(torch.arange(len(samples)).repeat(times))
        return Samples(view(repeated.inputs, generator), repeated.labels, repeated.class_names)

    source = f"{found.source}, placed on {side}x{side} with seed {seed}"
    return SampleSplits(placed(found.train, times[0]), placed(found.test, times[1]), source=source)
