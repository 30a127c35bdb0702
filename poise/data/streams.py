"""Contiguous streams over one long sequence of tokens, for models that carry memory from a segment to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from poise.data.errors import DataError
from poise.data.windows import Batch, check_place, check_tokens, evaluation_batches, pair


@dataclass(frozen=True, eq=False)
class StreamBatches:
    """Training batches of which each goes on where the one before ended; the batch of a step depends on it alone.

    `tokens`, a 1-D integer tensor, are cut into batch_size * world_size streams of equal length, one after another in
    the text; step k holds segment k of `length` tokens of each (Dai et al. 2019, section 3.2). Process `rank` of
    `world_size` takes `batch_size` consecutive streams. At the end of a round of `segments` steps all streams begin
    anew. In a round every token of a stream but its first is a target once; streams share their border, so the first
    of one is the last target of that before. Less than batch_size * world_size * length tokens at the end of the text
    fill no segments and are left out. There is no order to draw, hence no seed.

    Raises DataError if the tokens are no sequence of integers, are too few for one segment of every stream, or if a
    number is no size.
    """

    tokens: Tensor = field(repr=False)
    length: int
    batch_size: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        check_place(self.rank, self.world_size)
        check_tokens(self.tokens, self.length, self.batch_size)
        if self.segments == 0:
            streams = self.batch_size * self.world_size
            raise DataError(
                f"a text of {self.tokens.numel()} tokens gives {streams} streams less than one segment of length "
                f"{self.length} each ({streams * self.length + 1} tokens); pass a longer text, or a smaller length or "
                "batch_size."
            )

    @property
    def segments(self) -> int:
        """The number of steps in a round."""
        return (self.tokens.numel() - 1) // (self.batch_size * self.world_size * self.length)

    def fresh(self, step: int) -> bool:
        """Return whether the streams begin anew at a step, so that memory is to be emptied before it."""
        return step % self.segments == 0

    def batch(self, step: int) -> Batch:
        """Return the inputs and next-token targets of a step, counted from 0: int64, each (batch_size, length)."""
        if step < 0:
            raise DataError(f"step={step} is before the first; pass 0 or more.")
        streams = self.rank * self.batch_size + torch.arange(self.batch_size)
        first = (streams * self.segments + step % self.segments) * self.length  # (batch,)
        places = first[:, None] + torch.arange(self.length + 1)  # (batch, length + 1)
        return pair(self.tokens[places.to(self.tokens.device)])


def evaluation_streams(tokens: Tensor, length: int, batch_size: int, segments: int = 32) -> Sequence[Batch]:
    """Return all streams of `segments * length` tokens, so that every token but the first is predicted exactly once.

    A batch stands by itself: begin it with empty memory and walk along its segments, `inputs.split(length, 1)`, of
    which the last may be shorter. Inputs and targets are int64: (batch_size, segments * length), then the streams that
    remain, then, if tokens remain, one stream (1, shorter) by itself. More segments give a token more to look back at
    and fewer streams to compute at once. Weight a mean over batches by `targets.numel()`.

    Raises DataError if the tokens are no sequence of integers or fewer than length + 1, or if a number is no size.
    """
    check_tokens(tokens, length, batch_size)
    if segments < 1:
        raise DataError(f"segments={segments} is no size; pass at least 1.")
    # A text that fills no stream is one shorter stream.
    return evaluation_batches(tokens, min(segments * length, tokens.numel() - 1), batch_size)
