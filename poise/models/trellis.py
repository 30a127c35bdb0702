"""What the two networks of trellis layers share: the embedding, and the head tied to it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from poise.fixed_point.options import check_kind
from poise.nn.trellis import TrellisState

# Of the embedding, times 1 / sqrt(d_model). Entries of h lie within (-1, 1): where rows of the head are short, h must
# saturate to say anything, and c grow. A model of width 32 stood at 2.39 nats a character after 400 steps from the
# usual 0.02, and at 2.06 from here.
EMBEDDING_GAIN = 3.0


class TrellisNetwork(nn.Module):
    """A causal language model but for its layers: embedding, and a head tied to it.

    `vocab_size`: tokens. `d_model`: width of the embedding. `d_hidden`: width of h and of c (default 2 d_model).
    `d_out`: the head reads so many features of h, the last ones (default d_model), through a linear layer where that is
    not d_model.
    """

    def __init__(self, vocab_size: int, d_model: int, d_hidden: int | None = None, d_out: int | None = None) -> None:
        super().__init__()
        self.d_hidden = 2 * d_model if d_hidden is None else d_hidden
        self.d_out = d_model if d_out is None else d_out
        for option, width in (("d_hidden", self.d_hidden), ("d_out", self.d_out)):
            check_kind(type(self).__name__, option, width, "int")
        if not 1 <= self.d_out <= self.d_hidden:
            raise ValueError(
                f"d_out={self.d_out} is no part of d_hidden={self.d_hidden} features; pass a number from 1 to d_hidden."
            )
        self.embedding = nn.Embedding(vocab_size, d_model)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_GAIN * d_model**-0.5)
        self.projection = nn.Identity() if self.d_out == d_model else nn.Linear(self.d_out, d_model, bias=False)

    def head(self, state: TrellisState) -> Tensor:
        """Return logits (batch, length, vocab_size) of a state, by the embedding's own weights."""
        return F.linear(self.projection(state[0][..., -self.d_out :]), self.embedding.weight)
