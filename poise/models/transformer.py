"""The explicit peer of the DEQ-Transformer: the same blocks, embedding, positions and head, with untied layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poise.nn.attention import Norm
from poise.nn.convolution import ShortConvolution
from poise.nn.layers import CausalLayers
from poise.nn.normalization import normalize
from poise.nn.recall import Cache, Memory, Past, cached, remembered
from poise.nn.vocabulary import INITIAL_STD, build_vocabulary


class TransformerLM(nn.Module):
    """A causal Transformer language model of `n_layers` layers, its head tied to the embedding.

    `convolution`, `norm`, `span`, `variational`, `weight_norm`, `cutoffs`, `div_value`: as in `DEQTransformer`.
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
        convolution: int = 1,
        norm: Norm = "post",
        span: int | None = None,
        variational: bool = False,
        weight_norm: bool = False,
        cutoffs: tuple[int, ...] = (),
        div_value: float = 4.0,
    ) -> None:
        super().__init__()
        self.embedding = build_vocabulary(vocab_size, d_model, cutoffs, div_value)
        self.convolution = ShortConvolution(d_model, convolution)
        self.norm_input = nn.LayerNorm(d_model)
        self.layers = CausalLayers(
            d_model, n_heads, n_layers, d_ff or 4 * d_model, dropout, norm=norm, span=span, variational=variational
        )
        self.norm_head = nn.LayerNorm(d_model) if norm == "pre" else nn.Identity()
        init_weights(self)
        if weight_norm:
            normalize(self.layers, "weight")

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (batch, length, vocab_size) of the next token, for tokens (batch, length)."""
        return self.head(self.encode(tokens))

    def encode(self, tokens: Tensor) -> Tensor:
        """Return the last layer's output (batch, length, d_model)."""
        return self._run(tokens, None)[0][-1]

    def read(self, tokens: Tensor, past: Memory | None, memory: int) -> tuple[Tensor, Memory | None]:
        """Return the output of a segment, and the memory of the last `memory` positions (Dai et al. 2019)."""
        (*inputs, output), embedded = self._run(tokens, past)
        return output, remembered(past, inputs, memory, embedded) if memory else None

    @torch.no_grad()
    def decode(
        self, tokens: Tensor, past: Cache | None = None, lengths: Tensor | None = None, window: int | None = None
    ) -> tuple[Tensor, Cache]:
        """Return the output of tokens after those in a cache, and the cache with them, as in `DEQTransformer`."""
        before = Cache.empty(len(tokens), window, tokens.device) if past is None else past
        (*inputs, output), embedded = self._run(tokens, before, lengths)
        return output, cached(before, inputs, self.layers.stack, self.layers.rotary, lengths, embedded)

    def _run(
        self, tokens: Tensor, past: Past | None, lengths: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Return what every layer reads, and the last one's output; and what the convolution needs of the segment."""
        x, embedded = self.convolution(self.embedding(tokens), past and past.embedded, lengths)
        return self.layers(self.norm_input(x), past), embedded

    def head(self, state: Tensor) -> Tensor:
        """Return logits of a state, by the embedding's own weights."""
        return self.embedding.logits(self.norm_head(state))

    def losses(self, state: Tensor, targets: Tensor) -> Tensor:
        """Return -log p(target), nats a token, of a state (batch, length, d_model) and targets (batch, length)."""
        return self.embedding.losses(self.norm_head(state), targets)


def init_weights(model: nn.Module) -> None:
    """Draw matrices and embeddings from N(0, 0.02), biases zero (GPT-2's scheme)."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=INITIAL_STD)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
