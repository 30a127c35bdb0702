"""What the two networks of trellis layers share: the embedding, and the head tied to it."""

from __future__ import annotations

from torch import Tensor, nn

from poise.fixed_point.options import check_kind
from poise.nn.vocabulary import build_vocabulary

# Of the embedding, times 1 / sqrt(d_model). Entries of h lie within (-1, 1): where rows of the head are short, h must
# saturate to say anything, and c grow. A model of width 32 stood at 2.39 nats a character after 400 steps from the
# usual 0.02, and at 2.06 from here.
EMBEDDING_GAIN = 3.0


class TrellisNetwork(nn.Module):
    """A causal language model but for its layers: embedding, and a head tied to it.

    `vocab_size`: tokens. `d_model`: width of the embedding. `d_hidden`: width of h and of c (default 2 d_model).
    `d_out`: the head reads so many features of h, the last ones (default d_model), through a linear layer where that is
    not d_model. `cutoffs`, `div_value`: those of an `AdaptiveVocabulary` in place of one table, for tokens numbered
    from frequent to rare.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        d_hidden: int | None = None,
        d_out: int | None = None,
        cutoffs: tuple[int, ...] = (),
        div_value: float = 4.0,
    ) -> None:
        super().__init__()
        self.d_hidden = 2 * d_model if d_hidden is None else d_hidden
        self.d_out = d_model if d_out is None else d_out
        for option, width in (("d_hidden", self.d_hidden), ("d_out", self.d_out)):
            check_kind(type(self).__name__, option, width, "int")
        if not 1 <= self.d_out <= self.d_hidden:
            raise ValueError(
                f"d_out={self.d_out} is no part of d_hidden={self.d_hidden} features; pass a number from 1 to d_hidden."
            )
        self.embedding = build_vocabulary(vocab_size, d_model, cutoffs, div_value)
        self.embedding.reset_parameters(EMBEDDING_GAIN * d_model**-0.5)
        self.projection = nn.Identity() if self.d_out == d_model else nn.Linear(self.d_out, d_model, bias=False)

    def head(self, h: Tensor) -> Tensor:
        """Return logits (batch, length, vocab_size) of h (batch, length, d_hidden), by the embedding's own weights."""
        return self.embedding.logits(self._read_out(h))

    def losses(self, h: Tensor, targets: Tensor) -> Tensor:
        """Return -log p(target), nats a token, of h (batch, length, d_hidden) and targets (batch, length)."""
        return self.embedding.losses(self._read_out(h), targets)

    def _read_out(self, h: Tensor) -> Tensor:
        return self.projection(h[..., -self.d_out :])
