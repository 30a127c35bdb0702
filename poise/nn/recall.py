"""What attention sees of positions before a segment: a memory to train with, a cache to decode with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from poise.nn.attention import Rotary, Table, TransformerBlock

VOID = -1  # the position of a column in which nothing stands


@dataclass(frozen=True)
class Memory:
    """What every block read at earlier positions, to train and evaluate on a text in segments.

    Detached: the gradient reaches the blocks' projections of it, not the segments before (Dai et al. 2019,
    "Transformer-XL", section 3.2). Of a DEQ it is the equilibrium of those positions, carried through the blocks.
    """

    inputs: tuple[Tensor, ...]  # one a block, (batch, positions, d_model)
    embedded: Tensor | None = None  # what a `ShortConvolution` reads of them; None where there is none

    def of(self, first: int, last: int) -> Memory:
        """Return what the blocks from `first` up to, not including, `last` read."""
        return Memory(self.inputs[first:last])


@dataclass(frozen=True)
class Cache:
    """Keys and values of every block at earlier positions, to decode with.

    `window`: how many positions a new one sees, itself among them; None is all.
    """

    keys: tuple[Tensor, ...]  # one a block, (batch, heads, positions, head_dim), turned by their positions
    values: tuple[Tensor, ...]
    positions: Tensor  # (batch, positions) int64, VOID where a shorter prompt was padded
    window: int | None = None
    embedded: Tensor | None = None  # what a `ShortConvolution` reads of them; None where there is none

    def of(self, first: int, last: int) -> Cache:
        """Return the keys and values of the blocks from `first` up to, not including, `last`."""
        return replace(self, keys=self.keys[first:last], values=self.values[first:last])

    @staticmethod
    def empty(batch: int, window: int | None = None, device: torch.device | str | None = None) -> Cache:
        """Return the cache before the first position."""
        return Cache((), (), torch.empty((batch, 0), dtype=torch.long, device=device), window)


Past = Memory | Cache


@dataclass(frozen=True)
class Recalled:
    """A past as the evaluations of a solve need it; every tensor has the batch in its first dimension."""

    keys: tuple[Tensor, ...]  # of the past, one a block, or none
    values: tuple[Tensor, ...]
    cosine: Tensor  # (batch, 1, length, head_dim / 2), of the segment's own positions
    sine: Tensor
    bias: Tensor  # (batch, 1, length, past + length): 0 where a position sees another, else -inf

    @property
    def table(self) -> Table:
        """The rotary table of the segment's own positions."""
        return self.cosine, self.sine

    def of(self, block: int) -> tuple[Tensor, Tensor] | None:
        """Return the past keys and values of a block."""
        return (self.keys[block], self.values[block]) if self.keys else None


def recall(
    x: Tensor, past: Past | None, blocks: Sequence[TransformerBlock], rotary: Rotary, span: int | None
) -> Recalled | None:
    """Return what a segment x (batch, length, d_model) sees of the past and of itself; None is all before it.

    `span`: how many positions one sees, itself among them (local attention); None is all.
    """
    if isinstance(past, Cache):
        span = min((length for length in (span, past.window) if length is not None), default=None)
    if span is None and (past is None or (isinstance(past, Cache) and not past.keys)):
        return None
    before, start = _places(past, x)
    own = start[:, None] + torch.arange(x.shape[1], device=x.device)
    if isinstance(past, Cache):
        keys, values = past.keys, past.values
    else:
        keys, values = _projected(past, blocks, rotary, before)
    cosine, sine = rotary(own[:, None], x.dtype)
    positions = torch.cat([before, own], dim=1)
    distance = own[:, :, None] - positions[:, None]  # (batch, length, past + length)
    seen = (distance >= 0) & (positions != VOID)[:, None]
    if span is not None:
        seen &= distance < span
    bias = torch.zeros(seen.shape, dtype=x.dtype, device=x.device).masked_fill_(~seen, float("-inf"))
    return Recalled(keys, values, cosine, sine, bias[:, None])


def remembered(past: Memory | None, inputs: Sequence[Tensor], length: int, embedded: Tensor | None = None) -> Memory:
    """Return the last `length` positions, at least one, of a memory with those of a segment after them."""
    new = [part.detach() for part in inputs]
    if past is not None:
        new = [torch.cat(pair, dim=1) for pair in zip(past.inputs, new, strict=True)]
    return Memory(tuple(part[:, -length:] for part in new), embedded)


@torch.no_grad()
def cached(
    past: Cache,
    inputs: Sequence[Tensor],
    blocks: Sequence[TransformerBlock],
    rotary: Rotary,
    lengths: Tensor | None = None,
    embedded: Tensor | None = None,
) -> Cache:
    """Return a cache with a segment after it, of which the blocks read `inputs`.

    `lengths` (batch,): how many of its positions count, the rest being padding at the right. Positions that none of the
    coming ones can see are dropped.
    """
    before, start = _places(past, inputs[0])
    steps = torch.arange(inputs[0].shape[1], device=inputs[0].device)
    own = start[:, None] + steps
    table = rotary(own[:, None], inputs[0].dtype)
    pairs = [block.project(read, table)[1:] for block, read in zip(blocks, inputs, strict=True)]
    if past.keys:
        old = zip(past.keys, past.values, strict=True)
        pairs = [
            (torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2))
            for (keys, values), (key, value) in zip(old, pairs, strict=True)
        ]
    if lengths is not None:
        own = own.masked_fill(steps >= lengths[:, None], VOID)
    positions = torch.cat([before, own], dim=1)
    first = 0
    if past.window is not None:
        # The last one stays in any case: it says which position comes next.
        needed = positions > positions.amax(dim=1, keepdim=True) + 1 - max(past.window, 2)
        first = int(needed.any(dim=0).int().argmax())
    keys, values = (tuple(part[:, :, first:] for part in parts) for parts in zip(*pairs, strict=True))
    return Cache(keys, values, positions[:, first:], past.window, embedded)


def _places(past: Past | None, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions (batch, past) of what is remembered, and of the first one after it (batch,)."""
    if past is None or (isinstance(past, Cache) and not past.keys):
        return x.new_empty((len(x), 0), dtype=torch.long), x.new_zeros(len(x), dtype=torch.long)
    if isinstance(past, Cache):
        return past.positions, past.positions.amax(dim=1) + 1
    # Rotary positions are relative: counted from the memory's own start, they stay exact however long the text is.
    length = past.inputs[0].shape[1]
    return torch.arange(length, device=x.device).expand(len(x), -1), torch.full((len(x),), length, device=x.device)


def _projected(
    past: Memory | None, blocks: Sequence[TransformerBlock], rotary: Rotary, positions: Tensor
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    if past is None:
        return (), ()
    pairs = []
    for block, read in zip(blocks, past.inputs, strict=True):
        table = rotary(positions[:, None], read.dtype)
        pairs.append(block.project(read, table)[1:])
    return tuple(key for key, _ in pairs), tuple(value for _, value in pairs)
