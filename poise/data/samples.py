"""What a labelled set is: inputs of one or several kinds, labels, and its parts for training, validation and test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from poise.data.class_tables import VOID
from poise.data.encoded_label_maps import EncodedLabelMaps
from poise.data.encoded_pictures import Encoded
from poise.data.errors import DataError

Inputs = TypeVar("Inputs")


@dataclass(frozen=True, eq=False, repr=False)
class Samples(Generic[Inputs]):
    """`inputs` (N, ...), or a tuple of them where a sample has several kinds; `labels`; `class_names`.

    `labels` (N,) int64 are a class each; (N, H, W) uint8 or int64 are label maps, a class at each pixel of the picture
    or `VOID`. Samples with label maps may have a class of the whole beside them, `scene_labels` (N,) int64 of
    `scene_names`, so that one batch serves both. Inputs and label maps are tensors, or `EncodedPictures` and
    `EncodedLabelMaps` where they would fill the memory decoded. Raises DataError where numbers do not agree, labels are
    none of the classes, or a class is named twice.
    """

    inputs: Inputs
    labels: Any
    class_names: tuple[str, ...]
    scene_labels: Tensor | None = None
    scene_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_labels(self.labels, self.class_names)
        sizes = [len(kind) for kind in self._kinds]
        if not sizes or any(size != len(self.labels) for size in sizes):
            raise DataError(f"there are {sizes} inputs and {len(self.labels)} labels; pass one label each.")
        if self.per_pixel:
            for kind in self._kinds:
                if len(kind.shape) == 4 and kind.shape[2:] != self.labels.shape[1:]:
                    raise DataError(
                        f"there are label maps of {tuple(self.labels.shape[1:])} and pictures of "
                        f"{tuple(kind.shape[2:])}; both must have one size."
                    )
        if self.scene_labels is not None:
            if not self.per_pixel or self.scene_labels.dim() != 1 or len(self.scene_labels) != len(self.labels):
                raise DataError(
                    f"there are labels of shape {tuple(self.labels.shape)} and scene labels of shape "
                    f"{tuple(self.scene_labels.shape)}; pass one scene label beside each label map."
                )
            check_labels(self.scene_labels, self.scene_names)

    @property
    def _kinds(self) -> tuple[Any, ...]:
        return self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)

    @property
    def per_pixel(self) -> bool:
        """Whether the labels are label maps."""
        return len(self.labels.shape) == 3

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        kinds = " and ".join(f"{tuple(kind.shape[1:])} {_kind(kind.dtype)}" for kind in self._kinds)
        each = " at each pixel" if self.per_pixel else ""
        scene = f", {len(self.scene_names)} of the whole" if self.scene_labels is not None else ""
        return f"Samples({len(self):,} of {kinds}, {len(self.class_names)} classes{each}{scene})"

    def by_scene(self) -> Samples[Inputs]:
        """Return the same samples with the class of the whole for a label, these themselves where it is that already.

        Raises DataError where there are label maps alone.
        """
        if not self.per_pixel:
            return self
        if self.scene_labels is None:
            raise DataError("the samples have a class at each pixel and none of the whole; take another set.")
        return Samples(self.inputs, self.scene_labels, self.scene_names)

    def select(self, index: Tensor | slice) -> Samples[Any]:
        """Return the samples of an index or a slice, all inputs as tensors and all labels as int64 tensors.

        What is encoded is decoded.
        """
        return self._picked([kind[index] for kind in self._kinds], self.labels[index].long(), index)

    def restrict(self, index: Tensor | slice) -> Samples[Inputs]:
        """Return the samples of an index or a slice, and leave encoded what is."""
        kinds = [_restricted(kind, index) for kind in self._kinds]
        return self._picked(kinds, _restricted(self.labels, index), index)

    def batches(self, size: int) -> Iterator[Samples[Any]]:
        """Return the samples in order, `size` at a time as `select` gives them; the last batch may be smaller."""
        if size < 1:
            raise DataError(f"size={size} is no size of a batch; pass at least 1.")
        return (self.select(slice(start, start + size)) for start in range(0, len(self), size))

    def few(self, per_class: int, generator: torch.Generator) -> Tensor:
        """Return the places of so many samples of each class, drawn with the generator."""
        if self.per_pixel:
            raise DataError("samples with a class at each pixel are of no one class; pick them by their places.")
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

    def _picked(self, kinds: list[Any], labels: Any, index: Tensor | slice) -> Samples[Any]:
        inputs: Any = tuple(kinds) if isinstance(self.inputs, tuple) else kinds[0]
        scene_labels = None if self.scene_labels is None else self.scene_labels[index]
        return replace(self, inputs=inputs, labels=labels, scene_labels=scene_labels)


@dataclass(frozen=True, eq=False)
class SampleSplits(Generic[Inputs]):
    """The samples to train on, those to test on, where there are any those to validate on; `source` says whence."""

    train: Samples[Inputs]
    test: Samples[Inputs]
    valid: Samples[Inputs] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        for part in (self.test, self.valid):
            if part is None:
                continue
            for own, other in (
                (self.train.class_names, part.class_names),
                (self.train.scene_names, part.scene_names),
            ):
                if own != other:
                    raise DataError(
                        f"the parts of a set have the classes {own} and {other}; let all parts name the same."
                    )

    def __str__(self) -> str:
        validation = f", {len(self.valid):,} to validate on" if self.valid is not None else ""
        whence = f"; from {self.source}" if self.source else ""
        return f"{len(self.train):,} samples to train on{validation}, {len(self.test):,} to test on{whence}"

    def by_scene(self) -> SampleSplits[Inputs]:
        """Return these parts with the class of the whole for a label, as `Samples.by_scene` does."""
        valid = None if self.valid is None else self.valid.by_scene()
        return replace(self, train=self.train.by_scene(), test=self.test.by_scene(), valid=valid)

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


def check_labels(labels: Any, class_names: tuple[str, ...]) -> None:
    """Raise DataError unless `labels` are what `Samples` takes, of these classes."""
    if len(set(class_names)) < len(class_names):
        raise DataError(f"the {len(class_names)} class names {class_names} repeat; let them be distinct.")
    if isinstance(labels, EncodedLabelMaps):
        if labels.table.class_names != class_names:
            raise DataError(
                f"the class table names {labels.table.class_names}, the samples {class_names}; let them be the same."
            )
        return
    maps = labels.dim() == 3
    if labels.dtype not in ((torch.int64, torch.uint8) if maps else (torch.int64,)) or labels.dim() not in (1, 3):
        raise DataError(
            f"labels are {_kind(labels.dtype)} of shape {tuple(labels.shape)}; pass int64 of shape (N,), or label "
            "maps of shape (N, H, W)."
        )
    known = labels[labels != VOID] if maps else labels
    if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < len(class_names):
        raise DataError(
            f"labels run from {int(known.min())} to {int(known.max())}, but {len(class_names)} "
            f"classes are named; number them from 0 and name them all{f', with {VOID} for void' if maps else ''}."
        )


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _restricted(kind: Any, index: Tensor | slice) -> Any:
    return kind.restrict(index) if isinstance(kind, Encoded) else kind[index]
