"""Vocabularies of language models: tokens to features, and states to log-probabilities, by the same weights."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from poise.fixed_point.options import check_kind

INITIAL_STD = 0.02  # of every matrix and table (GPT-2's scheme)


class TiedVocabulary(nn.Embedding):
    """One vector a token, for its embedding and for its logit alike.

    Press and Wolf (2017), "Using the output embedding to improve language models".

    >>> vocabulary = TiedVocabulary(65, 32)
    >>> vocabulary.logits(vocabulary(torch.zeros(1, 10, dtype=torch.long))).shape
    torch.Size([1, 10, 65])
    """

    def __init__(self, vocab_size: int, d_model: int) -> None:
        super().__init__(vocab_size, d_model)

    def reset_parameters(self, std: float = INITIAL_STD) -> None:
        """Draw the table from N(0, std^2)."""
        nn.init.normal_(self.weight, std=std)

    def logits(self, state: Tensor) -> Tensor:
        """Return logits (..., vocab_size) of states (..., d_model)."""
        return F.linear(state, self.weight)

    def losses(self, state: Tensor, targets: Tensor) -> Tensor:
        """Return -log p(target), nats a token in float32 or better, of states (..., d_model) and targets (...)."""
        logits = self.logits(_flat(state, targets))
        return F.cross_entropy(_wide(logits), targets.flatten(), reduction="none").view(targets.shape)


class AdaptiveVocabulary(nn.Module):
    """Adaptive embedding and adaptive softmax on the same weights: the rarer a token, the narrower its vector.

    `cutoffs`: the tokens below the first one form the shortlist, of d_model features each; those between two cutoffs,
    and from the last one on, form clusters, the i-th (from 1) of d_model // div_value ** i features. The tokens must be
    numbered from frequent to rare. p(token) is that of its cluster, which stands in the shortlist's softmax, times its
    own within the cluster.

    The table of the softmax is the table of the embeddings in the shortlist and in every cluster, and a cluster's
    projection to d_model features is the transpose of the one from them; the shortlist has none. So Transformer-XL ties
    them on WikiText-103, after Baevski and Auli (2019, section 3).

    Raises ValueError for cutoffs that do not increase within the vocabulary, and for clusters without features.

    Grave, Joulin, Cissé, Grangier and Jégou (2017), "Efficient softmax approximation for GPUs"; Baevski and Auli
    (2019), "Adaptive input representations for neural language modeling"; Dai et al. (2019), "Transformer-XL".
    """

    def __init__(self, vocab_size: int, d_model: int, cutoffs: tuple[int, ...], div_value: float = 4.0) -> None:
        super().__init__()
        _check_clusters(vocab_size, d_model, cutoffs, div_value)
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(d_model, vocab_size, cutoffs, div_value)
        self.reset_parameters()

    def reset_parameters(self, std: float = INITIAL_STD) -> None:
        """Draw tables and projections from N(0, std^2)."""
        for weight in self.parameters():
            nn.init.normal_(weight, std=std)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return embeddings (..., d_model) of tokens (...)."""
        softmax = self.softmax
        # What is no token stays as it is: it is no row of this table either, and fails as in nn.Embedding.
        clustered = (tokens >= softmax.cutoffs[0]) & (tokens < softmax.n_classes)
        embedded = F.embedding(torch.where(clustered, 0, tokens), softmax.head.weight)
        # Every cluster looks at every token: the shapes are fixed, nothing waits for the host, and every weight has a
        # gradient at every step, which DDP asks for; the narrow products cost little.
        for (low, high), tail in zip(pairwise(softmax.cutoffs), softmax.tail, strict=True):
            projection, table = tail.parameters()
            inside = (tokens >= low) & (tokens < high)
            rows = F.embedding(torch.where(inside, tokens - low, 0), table)
            embedded = torch.where(inside.unsqueeze(-1), rows @ projection, embedded)
        # Times sqrt(d_model), as Dai et al. have it. A network that layer-normalises its input hardly sees the scale,
        # but its eps does: fresh vectors of a cluster, a product of two small matrices, have a variance below 1e-5.
        return embedded * softmax.in_features**0.5

    def logits(self, state: Tensor) -> Tensor:
        """Return log-probabilities (..., vocab_size) of states (..., d_model): logits whose normaliser is 1.

        They are as many as the full softmax has; `losses` makes those of the targets alone.
        """
        flat = state.reshape(-1, state.shape[-1])
        with torch.autocast(state.device.type, enabled=False):
            flat = flat.to(torch.promote_types(state.dtype, self.softmax.head.weight.dtype))
            return self.softmax.log_prob(flat).view(*state.shape[:-1], self.softmax.n_classes)

    def losses(self, state: Tensor, targets: Tensor) -> Tensor:
        """Return -log p(target), nats a token in float32 or better, of states (..., d_model) and targets (...).

        A cluster is computed only for the targets in it, so that no (tokens, vocab_size) is ever made.
        """
        # torch's module works in the precision that it is given, and does not bear autocast on every device.
        weights = {name: _wide(weight) for name, weight in self.softmax.named_parameters()}
        with torch.autocast(state.device.type, enabled=False):
            found = functional_call(self.softmax, weights, (_wide(_flat(state, targets)), targets.flatten()))
        return -found.output.view(targets.shape)


Vocabulary = TiedVocabulary | AdaptiveVocabulary


def build_vocabulary(
    vocab_size: int, d_model: int, cutoffs: tuple[int, ...] = (), div_value: float = 4.0
) -> Vocabulary:
    """Return the full vocabulary where `cutoffs` is empty, else the adaptive one, whose arguments these are."""
    if not cutoffs:
        return TiedVocabulary(vocab_size, d_model)
    return AdaptiveVocabulary(vocab_size, d_model, cutoffs, div_value)


def _check_clusters(vocab_size: int, d_model: int, cutoffs: tuple[int, ...], div_value: float) -> None:
    for cutoff in cutoffs:
        check_kind("AdaptiveVocabulary", "cutoffs", cutoff, "int")
    check_kind("AdaptiveVocabulary", "div_value", div_value, "float")
    bounds = (0, *cutoffs, vocab_size)
    if not cutoffs or any(low >= high for low, high in pairwise(bounds)):
        raise ValueError(
            f"cutoffs={tuple(cutoffs)} cut no vocabulary of {vocab_size} tokens into clusters; pass numbers that "
            f"increase, from 1 to {vocab_size - 1}."
        )
    if not div_value >= 1:
        raise ValueError(f"div_value={div_value} would widen the vectors of rare tokens; pass at least 1.")
    if d_model // div_value ** len(cutoffs) < 1:
        raise ValueError(
            f"div_value={div_value} leaves cluster {len(cutoffs)} no feature of d_model={d_model}; pass a smaller one, "
            "or fewer cutoffs."
        )


def _flat(state: Tensor, targets: Tensor) -> Tensor:
    """Return states (tokens, d_model) of which each has its target."""
    if state.shape[:-1] != targets.shape:
        raise ValueError(
            f"states of shape {tuple(state.shape)} do not fit targets of shape {tuple(targets.shape)}; pass "
            "(..., d_model) and (...)."
        )
    return state.reshape(-1, state.shape[-1])


def _wide(numbers: Tensor) -> Tensor:
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))
