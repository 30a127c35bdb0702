"""Batches of a labelled set in random order, epoch after epoch, each a function of its number and a seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from poise.data.errors import DataError
from poise.data.samples import Samples
from poise.data.views import SceneView, View


@dataclass(frozen=True, eq=False)
class ShuffledBatches:
    """Training batches of `samples`: an epoch is a permutation without its last, short batch.

    `batches(index)` returns inputs and int64 labels of batch `index`, counted from 0 over all epochs, and the labels of
    the whole scene as a third where there are any; a function of these and the seed alone. `view` is applied to the
    inputs, or with label maps to both, and draws from a seed of the batch. `size` is the batch of one process; the
    processes of a run (`rank` of `world_size`) take turns. Raises DataError for a size that is none or too large.
    """

    samples: Samples[Any] = field(repr=False)
    size: int
    seed: int
    view: View | SceneView | None = None
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.size <= len(self.samples):
            raise DataError(
                f"size={self.size} is no size of a batch of {len(self.samples)} samples; pass 1 to that many."
            )
        if not 0 <= self.rank < self.world_size:
            raise DataError(f"rank={self.rank} is no process of world_size={self.world_size}; pass 0 to one less.")

    def __call__(self, index: int) -> tuple[Any, ...]:
        """Return inputs and labels of a batch."""
        if index < 0:
            raise DataError(f"batch {index} is before the first; pass 0 or more.")
        batch = self.samples.select(self.places(index))
        inputs, labels = self._viewed(batch, torch.Generator().manual_seed(batch_seed(self.seed, index, self.rank)))
        return (inputs, labels) if batch.scene_labels is None else (inputs, labels, batch.scene_labels)

    def places(self, index: int) -> Tensor:
        """Return which samples are in a batch, (size,)."""
        epoch, number = divmod(index * self.world_size + self.rank, len(self.samples) // self.size)
        generator = torch.Generator().manual_seed(batch_seed(self.seed, epoch, -1))
        return torch.randperm(len(self.samples), generator=generator)[number * self.size :][: self.size]

    def _viewed(self, batch: Samples[Any], generator: torch.Generator) -> tuple[Any, Tensor]:
        view: Any = self.view
        if view is None:
            return batch.inputs, batch.labels
        if batch.per_pixel:
            return view(batch.inputs, batch.labels, generator)
        return view(batch.inputs, generator), batch.labels


def batch_seed(seed: int, index: int, rank: int) -> int:
    """Return the seed of the noise in one batch of one process."""
    digest = hashlib.blake2b(f"{seed} {index} {rank}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")
