"""Sampling text from a causal language model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor


class Decodes(Protocol):
    """A causal language model that goes on from what it has read."""

    def decode(
        self, tokens: Tensor, past: Any = None, lengths: Tensor | None = None, window: int | None = None
    ) -> tuple[Tensor, Any]:
        """Return states (batch, length, d_model) of tokens after a past, and the past with them."""
        ...

    def head(self, state: Tensor) -> Tensor:
        """Return logits of states."""
        ...


def generate(model: Decodes, tokens: Tensor, n_tokens: int, **options: Any) -> Tensor:
    """Return `n_tokens` sampled after each prompt, (batch, n_tokens); options as in `stream`."""
    new = list(stream(model, tokens, n_tokens, **options))
    return torch.stack(new, dim=1) if new else tokens[:, :0]


@torch.no_grad()
def stream(
    model: Decodes,
    tokens: Tensor,
    n_tokens: int,
    *,
    lengths: Tensor | None = None,
    window: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yield sampled tokens (batch,) one position after another, each solved against the equilibria before it.

    `tokens`: prompts (batch, length); `lengths` (batch,): of each, where they differ and are padded at the right.
    `window`: how many positions one sees, itself among them; None is all. `temperature`: 0 takes the likeliest token.
    `top_k`: sample among the likeliest k only. Raises ValueError for prompts, lengths and options that choose nothing.
    """
    if tokens.dim() != 2 or tokens.shape[1] == 0:
        raise ValueError(f"prompts are tokens of shape (batch, length), not {tuple(tokens.shape)}; pass one or more.")
    if temperature < 0 or (top_k is not None and top_k < 1) or (window is not None and window < 1):
        raise ValueError(
            f"temperature={temperature}, top_k={top_k} and window={window} choose nothing; pass at least 0, 1 and 1."
        )
    if lengths is not None and not bool(((lengths >= 1) & (lengths <= tokens.shape[1])).all()):
        raise ValueError(f"lengths={lengths.tolist()} of prompts in {tokens.shape[1]} columns; pass 1 to as many.")
    state, past = model.decode(tokens, lengths=lengths, window=window)
    last = torch.full((len(tokens),), tokens.shape[1], device=tokens.device) if lengths is None else lengths
    state = state[torch.arange(len(tokens), device=tokens.device), last - 1][:, None]
    for place in range(n_tokens):
        token = _choose(model.head(state)[:, -1], temperature, top_k, generator)
        yield token
        if place < n_tokens - 1:
            state, past = model.decode(token[:, None], past)


def _choose(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None) -> Tensor:
    """Return a token for each row of logits (batch, vocab_size)."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    probabilities = torch.softmax(logits.double() / temperature, dim=-1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
