"""Sampling text from a causal language model."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from poise.models.deq_transformer import DEQTransformer


def generate(
    model: nn.Module,
    tokens: Tensor,
    n_tokens: int,
    *,
    window: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the prompt `tokens` (1, length) followed by `n_tokens` sampled ones.

    `window`: positions the model sees, the last ones. `temperature`: 0 takes the likeliest token. `top_k`: sample among
    the likeliest k only. A DEQ starts each solve from the equilibrium before, moved along with the window.
    """
    new = list(
        stream(model, tokens, n_tokens, window=window, temperature=temperature, top_k=top_k, generator=generator)
    )
    return torch.cat([tokens, torch.tensor([new], dtype=tokens.dtype, device=tokens.device)], dim=1) if new else tokens


@torch.no_grad()
def stream(
    model: nn.Module,
    tokens: Tensor,
    n_tokens: int,
    *,
    window: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """Yield sampled tokens one by one; arguments as in `generate`."""
    if tokens.dim() != 2 or tokens.shape[0] != 1 or tokens.shape[1] == 0:
        raise ValueError(
            f"generate continues one prompt of shape (1, length), not {tuple(tokens.shape)}; pass one token."
        )
    if temperature < 0 or (top_k is not None and top_k < 1):
        raise ValueError(f"temperature={temperature} and top_k={top_k} choose nothing; pass at least 0 and 1.")
    state: Tensor | None = None
    for _ in range(n_tokens):
        seen = tokens[:, -window:]
        logits, state = _next_logits(model, seen, state)
        token = _choose(logits, temperature, top_k, generator)
        yield int(token)
        tokens = torch.cat([seen, token.reshape(1, 1)], dim=1)


def _next_logits(model: nn.Module, seen: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the logits of the token after `seen` and the equilibrium there."""
    if not isinstance(model, DEQTransformer):
        return model(seen)[0, -1], None
    start = None
    if state is not None:
        length = seen.shape[1]
        kept = state[:, -(length - 1) :] if length > 1 else state[:, :0]
        start = torch.cat([kept, torch.zeros_like(state[:, : length - kept.shape[1]])], dim=1)
    state = model.solve(seen, start).state
    return model.head(state[:, -1:])[0, 0], state


def _choose(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None) -> Tensor:
    if temperature == 0:
        return logits.argmax()
    if top_k is not None and top_k < len(logits):
        least = logits.topk(top_k).values[-1]
        logits = logits.masked_fill(logits < least, float("-inf"))
    probabilities = torch.softmax(logits.double() / temperature, dim=-1)
    return torch.multinomial(probabilities, 1, generator=generator)[0]
