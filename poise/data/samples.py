"""What a labelled set is: inputs of one or several kinds, labels, and its parts for training and test."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Samples:
    """`inputs` (N, ...), or a tuple of them where a sample has several kinds; `labels` (N,) int64; `class_names`."""

    inputs: Tensor | tuple[Tensor, ...]
    labels: Tensor
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        kinds = self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)
        if any(len(kind) != len(self.labels) for kind in kinds):
            raise ValueError(
                f"there are {[len(kind) for kind in kinds]} inputs and {len(self.labels)} labels; pass one label each."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, index: Tensor | slice) -> Samples:
        """Return the samples of an index or a slice."""
        kinds = self.inputs
        picked = tuple(kind[index] for kind in kinds) if isinstance(kinds, tuple) else kinds[index]
        return replace(self, inputs=picked, labels=self.labels[index])

    def few(self, per_class: int, generator: torch.Generator) -> Tensor:
        """Return the places of so many samples of each class, drawn with the generator."""
        order = torch.randperm(len(self), generator=generator)
        labels = self.labels[order]
        picked = []
        for place in range(len(self.class_names)):
            own = order[labels == place]
            if len(own) < per_class:
                raise ValueError(
                    f"class {self.class_names[place]!r} has {len(own)} samples, not {per_class}; ask for fewer a class."
                )
            picked.append(own[:per_class])
        return torch.cat(picked)


@dataclass(frozen=True)
class SampleSplits:
    """The samples to train on, and those to test on."""

    train: Samples
    test: Samples
