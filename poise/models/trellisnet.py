"""The explicit peer of DEQ-TrellisNet: the same layer, embedding, head and parameters, at a depth of its own."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from poise.fixed_point.options import check_kind
from poise.models.trellis import TrellisNetwork
from poise.nn.parametrized import computed_weights, held
from poise.nn.segments import Segment
from poise.nn.trellis import TrellisLayer, TrellisPast

LayersPast = tuple[TrellisPast, ...]


class TrellisNet(TrellisNetwork):
    """A causal language model of `n_layers` trellis layers that share their weights, its head tied to the embedding.

    A position sees the `n_layers` before it. The other options are those of `DEQTrellisNet`.

    Bai, Kolter and Koltun (2019), "Trellis Networks for Sequence Modeling".

    >>> TrellisNet(vocab_size=65, d_model=32)(torch.zeros(1, 10, dtype=torch.long)).shape
    torch.Size([1, 10, 65])
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        d_hidden: int | None = None,
        d_out: int | None = None,
        n_layers: int = 12,
        dropout: float = 0.0,
        weight_norm: bool = True,
        *,
        cutoffs: tuple[int, ...] = (),
        div_value: float = 4.0,
    ) -> None:
        super().__init__(vocab_size, d_model, d_hidden, d_out, cutoffs, div_value)
        check_kind("TrellisNet", "n_layers", n_layers, "int")
        if n_layers < 1:
            raise ValueError(f"n_layers={n_layers} leaves the state at zero; pass at least 1.")
        self.n_layers = n_layers
        self.layer = TrellisLayer(d_model, self.d_hidden, dropout=dropout, weight_norm=weight_norm)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (batch, length, vocab_size) of the next token, for tokens (batch, length)."""
        return self.head(self.encode(tokens))

    def encode(self, tokens: Tensor) -> Tensor:
        """Return the last layer's h, (batch, length, d_hidden)."""
        return self._layers(tokens, None)[0]

    def read(
        self, tokens: Tensor, past: LayersPast | None, memory: int, lengths: Tensor | None = None
    ) -> tuple[Tensor, LayersPast | None]:
        """Return h of a segment and what is remembered of it, as in `DEQTrellisNet.read`; every layer has its own."""
        h, last = self._layers(tokens, past, lengths)
        return h, last if memory else None

    @torch.no_grad()
    def decode(
        self, tokens: Tensor, past: LayersPast | None = None, lengths: Tensor | None = None, window: int | None = None
    ) -> tuple[Tensor, LayersPast]:
        """Return h of tokens after a past, and the past with them, as in `DEQTrellisNet.decode`."""
        return self._layers(tokens, past, lengths)

    def _layers(
        self, tokens: Tensor, past: LayersPast | None, lengths: Tensor | None = None
    ) -> tuple[Tensor, LayersPast]:
        """Return the last layer's h, and what every layer read at the last position."""
        with held(computed_weights(self.layer)):  # normalised weights once for all layers
            first = self.layer.inject(Segment(self.embedding(tokens), None if past is None else past[0]))
            state, last = self.layer.initial_state(first), []
            for place in range(self.n_layers):
                context = first
                if past is not None:
                    context = replace(first, h=past[place].h.unsqueeze(1), c=past[place].c.unsqueeze(1))
                last.append(self.layer.remember(state, context, lengths))
                state = self.layer(state, context)
        return state[0], tuple(last)
