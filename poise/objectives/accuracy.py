"""How often the right class is among the likeliest."""

from __future__ import annotations

import torch
from torch import Tensor


def correct_within(logits: Tensor, labels: Tensor, k: int = 1) -> Tensor:
    """Return how many of the labels (N,) are among the k largest logits (N, K) of their sample, a scalar int64.

    A label counts where fewer than k classes have a larger logit, or an equal one and a smaller number; with k = 1 that
    is the argmax, and of equal logits always k classes count. Divide by the number of samples for top-k accuracy.
    """
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} do not fit labels of shape {tuple(labels.shape)}; pass (N, K) and "
            "(N,)."
        )
    if not 1 <= k <= logits.shape[1]:
        raise ValueError(f"k={k} of {logits.shape[1]} classes says nothing; pass 1 to {logits.shape[1]}.")
    own = logits.gather(1, labels.unsqueeze(1))
    earlier = torch.arange(logits.shape[1], device=logits.device) < labels.unsqueeze(1)
    # Written so that a NaN is before everything: what is no number is not right.
    before = ~(logits <= own) | ((logits == own) & earlier)
    return (before.sum(dim=1) < k).sum()
