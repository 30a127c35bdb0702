"""What a labelled set is: inputs of one or several kinds, labels, and its parts for training, validation and test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from poise.data.encoded_pictures import EncodedPictures
from poise.data.errors import DataError

Inputs = TypeVar("Inputs")


@dataclass(frozen=True, eq=False, repr=False)
class Samples(Generic[Inputs]):
    """`inputs` (N, ...), or a tuple of them where a sample has several kinds; `labels` (N,) int64; `class_names`.

    An input is a tensor, or `EncodedPictures` where the decoded pictures would fill the memory. Raises DataError where
    numbers do not agree, labels are no int64 of the classes, or a class is named twice.
    """

    inputs: Inputs
    labels: Tensor
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.labels.dim() != 1 or self.labels.dtype != torch.int64:
            raise DataError(
                f"labels are {_kind(self.labels.dtype)} of shape {tuple(self.labels.shape)}; pass int64 of shape (N,)."
            )
        sizes = [len(kind) for kind in self._kinds]
        if not sizes or any(size != len(self.labels) for size in sizes):
            raise DataError(f"there are {sizes} inputs and {len(self.labels)} labels; pass one label each.")
        if len(set(self.class_names)) < len(self.class_names):
            raise DataError(f"the {len(self.class_names)} class names {self.class_names} repeat; let them be distinct.")
        if len(self) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.class_names):
            raise DataError(
                f"labels run from {int(self.labels.min())} to {int(self.labels.max())}, but {len(self.class_names)} "
                "classes are named; number them from 0 and name them all."
            )

    @property
    def _kinds(self) -> tuple[Any, ...]:
        return self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        kinds = " and ".join(f"{tuple(kind.shape[1:])} {_kind(kind.dtype)}" for kind in self._kinds)
        return f"Samples({len(self):,} of {kinds}, {len(self.class_names)} classes)"

    def select(self, index: Tensor | slice) -> Samples[Any]:
        """Return the samples of an index or a slice, with all their inputs as tensors: encoded pictures are decoded."""
        return self._picked([kind[index] for kind in self._kinds], index)

    def restrict(self, index: Tensor | slice) -> Samples[Inputs]:
        """Return the samples of an index or a slice, and leave encoded pictures encoded."""
        kinds = [kind.restrict(index) if isinstance(kind, EncodedPictures) else kind[index] for kind in self._kinds]
        return self._picked(kinds, index)

    def batches(self, size: int) -> Iterator[Samples[Any]]:
        """Return the samples in order, `size` at a time as `select` gives them; the last batch may be smaller."""
        if size < 1:
            raise DataError(f"size={size} is no size of a batch; pass at least 1.")
        return (self.select(slice(start, start + size)) for start in range(0, len(self), size))

    def few(self, per_class: int, generator: torch.Generator) -> Tensor:
        """Return the places of so many samples of each class, drawn with the generator."""
        order = torch.randperm(len(self), generator=generator)
        labels = self.labels[order]
        picked = []
        for place in range(len(self.class_names)):
            own = order[labels == place]
            if len(own) < per_class:
                raise DataError(
                    f"class {self.class_names[place]!r} has {len(own)} samples, not {per_class}; ask for fewer a class."
                )
            picked.append(own[:per_class])
        return torch.cat(picked)

    def _picked(self, kinds: list[Any], index: Tensor | slice) -> Samples[Any]:
        inputs: Any = tuple(kinds) if isinstance(self.inputs, tuple) else kinds[0]
        return replace(self, inputs=inputs, labels=self.labels[index])


@dataclass(frozen=True, eq=False)
class SampleSplits(Generic[Inputs]):
    """The samples to train on, those to test on, where there are any those to validate on; `source` says whence."""

    train: Samples[Inputs]
    test: Samples[Inputs]
    valid: Samples[Inputs] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        for part in (self.test, self.valid):
            if part is not None and part.class_names != self.train.class_names:
                raise DataError(
                    f"the parts of a set have the classes {self.train.class_names} and {part.class_names}; "
                    "let all parts name the same."
                )

    def __str__(self) -> str:
        validation = f", {len(self.valid):,} to validate on" if self.valid is not None else ""
        whence = f"; from {self.source}" if self.source else ""
        return f"{len(self.train):,} samples to train on{validation}, {len(self.test):,} to test on{whence}"

    def hold_out(self, per_class: int, generator: torch.Generator) -> SampleSplits[Inputs]:
        """Return these parts with so many training samples of each class kept for validation instead.

        Raises DataError where there are samples to validate on already, or too few to train on.
        """
        if self.valid is not None:
            raise DataError(f"there are {len(self.valid)} samples to validate on already; hold out none.")
        held = torch.zeros(len(self.train), dtype=torch.bool)
        held[self.train.few(per_class, generator)] = True
        return replace(
            self,
            train=self.train.restrict((~held).nonzero().squeeze(1)),
            valid=self.train.restrict(held.nonzero().squeeze(1)),
        )


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
