"""Six kinds of features of the same handwritten numerals (UCI Multiple Features): inputs of two kinds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from poise.data.errors import DataError
from poise.data.npz import read_npz
from poise.data.samples import Samples, SampleSplits

PIXELS = "pix"
SIZES = {"fou": 76, "fac": 216, "kar": 64, PIXELS: 240, "zer": 47, "mor": 6}
PICTURE = (1, 16, 15)  # of the pixels
CLASSES = 10


def multiple_features(
    path: Path, kinds: Sequence[str] = (PIXELS, "fou"), test_per_class: int = 50, seed: int = 0
) -> SampleSplits[tuple[Tensor, ...]]:
    """Return samples with a tuple of inputs, one for each kind asked for; 200 a class, so many of them for the test.

    Vectors are standardised by the training samples; pixels are pictures (N, 1, 16, 15) in [0, 1]. Raises DataError for
    a file that is not that set.
    """
    unknown = [kind for kind in kinds if kind not in SIZES]
    if unknown or not kinds:
        raise DataError(f"kinds={tuple(kinds)!r} names no kind of these features; pass some of {', '.join(SIZES)}.")
    arrays = read_npz(path, (*kinds, "labels"), "file of Multiple Features")
    labels = torch.from_numpy(arrays["labels"].astype(np.int64))
    for kind in kinds:
        if arrays[kind].shape != (len(labels), SIZES[kind]):
            raise DataError(
                f"{str(path)!r} holds {kind!r} of shape {arrays[kind].shape}, not {(len(labels), SIZES[kind])}; fetch "
                "it anew."
            )
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    test = torch.cat([shuffled[labels[shuffled] == place][:test_per_class] for place in range(CLASSES)])
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    held_out[test] = True
    inputs = tuple(_prepared(kind, torch.from_numpy(arrays[kind]).float(), ~held_out) for kind in kinds)
    whole = Samples(inputs, labels, tuple(str(place) for place in range(CLASSES)))
    return SampleSplits(whole.select((~held_out).nonzero().squeeze(1)), whole.select(held_out.nonzero().squeeze(1)))


def _prepared(kind: str, values: Tensor, train: Tensor) -> Tensor:
    if kind == PIXELS:
        return (values / values[train].max()).view(-1, *PICTURE)
    known = values[train]
    return (values - known.mean(dim=0)) / known.std(dim=0).clamp_min(1e-6)
