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
    smallest = int(torch.bincount(labels.clamp(0, CLASSES - 1), minlength=CLASSES).min()) if labels.dim() == 1 else 0
    if labels.dim() != 1 or not smallest or int(labels.min()) < 0 or int(labels.max()) >= CLASSES:
        raise DataError(
            f"{str(path)!r} has labels that are not the {CLASSES} digits, each at least once; fetch it anew."
        )
    if not 1 <= test_per_class < smallest:
        raise DataError(
            f"test_per_class={test_per_class} of {smallest} samples leaves none to train on or to test on; pass 1 to "
            f"{smallest - 1}."
        )
    for kind in kinds:
        if arrays[kind].shape != (len(labels), SIZES[kind]):
            raise DataError(
                f"{str(path)!r} holds {kind!r} of shape {arrays[kind].shape}, not {(len(labels), SIZES[kind])}; fetch "
                "it anew."
            )
        if not np.isfinite(arrays[kind]).all():
            raise DataError(f"{str(path)!r} holds {kind!r} with values that are not finite; fetch it anew.")
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    test = torch.cat([shuffled[labels[shuffled] == place][:test_per_class] for place in range(CLASSES)])
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    held_out[test] = True
    inputs = tuple(_prepared(kind, torch.from_numpy(arrays[kind]).float(), ~held_out) for kind in kinds)
    whole = Samples(inputs, labels, tuple(str(place) for place in range(CLASSES)))
    train, rest = (whole.select(part.nonzero().squeeze(1)) for part in (~held_out, held_out))
    return SampleSplits(train, rest, source=f"{', '.join(kinds)} of {str(path)!r}, split with seed {seed}")


def _prepared(kind: str, values: Tensor, train: Tensor) -> Tensor:
    if kind == PIXELS:
        return (values / values[train].max()).view(-1, *PICTURE)
    known = values[train]
    return (values - known.mean(dim=0)) / known.std(dim=0).clamp_min(1e-6)
