"""The explicit peer of the DEQ-Transformer: the same blocks, embedding, positions and head, with untied layers."""

from __future__ import annotations

from torch import Tensor, nn

from poise.nn.attention import Rotary, TransformerBlock
from poise.nn.vocabulary import INITIAL_STD, build_vocabulary


class TransformerLM(nn.Module):
    """A causal Transformer language model of `n_layers` post-norm layers, its head tied to the embedding.

    `cutoffs`, `div_value`: those of an `AdaptiveVocabulary` in place of one table, for tokens numbered from frequent to
    rare.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        n_heads: int,
        n_layers: int = 4,
        d_ff: int | None = None,
        dropout: float = 0.0,
        *,
        cutoffs: tuple[int, ...] = (),
        div_value: float = 4.0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.embedding = build_vocabulary(vocab_size, d_model, cutoffs, div_value)
        self.norm_input = nn.LayerNorm(d_model)
        self.rotary = Rotary(d_model // n_heads)
        self.blocks = nn.ModuleList(TransformerBlock(d_model, n_heads, d_ff or 4 * d_model) for _ in range(n_layers))
        init_weights(self)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (batch, length, vocab_size) of the next token, for tokens (batch, length)."""
        return self.head(self.encode(tokens))

    def encode(self, tokens: Tensor) -> Tensor:
        """Return the last layer's output (batch, length, d_model)."""
        h = self.norm_input(self.embedding(tokens))
        table = self.rotary(tokens.shape[1], h.dtype)
        for block in self.blocks:
            noise = block.draw_noise(h, self.dropout) if self.training and self.dropout else None  # type: ignore[operator]
            h = block(h, table, None, noise)
        return h

    def head(self, state: Tensor) -> Tensor:
        """Return logits of a state, by the embedding's own weights."""
        return self.embedding.logits(state)

    def losses(self, state: Tensor, targets: Tensor) -> Tensor:
        """Return -log p(target), nats a token, of a state (batch, length, d_model) and targets (batch, length)."""
        return self.embedding.losses(state, targets)


def init_weights(model: nn.Module) -> None:
    """Draw matrices and embeddings from N(0, 0.02), biases zero (GPT-2's scheme)."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=INITIAL_STD)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
