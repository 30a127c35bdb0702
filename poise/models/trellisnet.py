"""The explicit peer of DEQ-TrellisNet: the same layer, embedding, head and parameters, at a depth of its own."""

from __future__ import annotations

from torch import Tensor

from poise.fixed_point.options import check_kind
from poise.models.trellis import TrellisNetwork
from poise.nn.parametrized import computed_weights, held
from poise.nn.trellis import TrellisLayer, TrellisState


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
    ) -> None:
        super().__init__(vocab_size, d_model, d_hidden, d_out)
        check_kind("TrellisNet", "n_layers", n_layers, "int")
        if n_layers < 1:
            raise ValueError(f"n_layers={n_layers} leaves the state at zero; pass at least 1.")
        self.n_layers = n_layers
        self.layer = TrellisLayer(d_model, self.d_hidden, dropout=dropout, weight_norm=weight_norm)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (batch, length, vocab_size) of the next token, for tokens (batch, length)."""
        return self.head(self.encode(tokens))

    def encode(self, tokens: Tensor) -> TrellisState:
        """Return the last layer's h and c, (batch, length, d_hidden) each."""
        with held(computed_weights(self.layer)):  # normalised weights once for all layers
            context = self.layer.inject(self.embedding(tokens))
            state = self.layer.initial_state(context)
            for _ in range(self.n_layers):
                state = self.layer(state, context)
        return state
