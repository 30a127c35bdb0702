"""What features are worth: a linear classifier and the nearest neighbours, on features that are not trained by it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ITERATIONS = 300  # of L-BFGS at most
TOLERANCE = 1e-5  # of the gradient's largest entry, per sample
NEIGHBOUR_ROWS = 1024  # of the similarity matrix made at a time


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier of standardised features: `probe(features)` returns logits (N, classes)."""

    mean: Tensor
    deviation: Tensor
    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Return the logits of features (N, F)."""
        return (features.float() - self.mean) / self.deviation @ self.weight.t() + self.bias

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Return the share of features whose largest logit is their label's."""
        return (self(features).argmax(dim=1) == labels).double().mean().item()


def fit_linear_probe(features: Tensor, labels: Tensor, classes: int, strength: float = 0.1) -> LinearProbe:
    """Return the multinomial logistic regression of features (N, F), standardised, to labels (N,).

    Minimises |W|^2 / 2 + strength * (sum of cross-entropies) by L-BFGS, scikit-learn's convention with C = `strength`;
    the bias is not penalised. Features get no gradient.
    """
    if features.dim() != 2 or len(features) != len(labels) or len(features) < 2:
        raise ValueError(
            f"a probe is fitted to features (N, F) and N labels, and got {tuple(features.shape)} and {len(labels)}; "
            "pass one label each, at least 2."
        )
    x = features.detach().float()
    mean, deviation = x.mean(dim=0), x.std(dim=0).clamp_min(1e-6)
    x = (x - mean) / deviation
    weight = x.new_zeros(classes, x.shape[1], requires_grad=True)
    bias = x.new_zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, tolerance_grad=TOLERANCE, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        # Divided by what multiplies the sum, so that the gradient's size does not depend on the number of samples.
        loss = F.cross_entropy(F.linear(x, weight, bias), labels) + weight.square().sum() / (2 * strength * len(x))
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return LinearProbe(mean, deviation, weight.detach(), bias.detach())


@torch.no_grad()
def nearest_neighbours(
    known: Tensor, labels: Tensor, features: Tensor, classes: int, neighbours: int = 20, temperature: float = 0.07
) -> Tensor:
    """Return the class (N,) of each of `features` (N, F) by its nearest of `known` (M, F) with their labels (M,).

    Cosine similarity s, votes weighted by exp(s / temperature). Wu, Xiong, Yu and Lin (2018), "Unsupervised feature
    learning via non-parametric instance discrimination", section 3.4.
    """
    if not 1 <= neighbours <= len(known):
        raise ValueError(
            f"neighbours={neighbours} of {len(known)} known samples cannot vote; pass from 1 to that many."
        )
    known = F.normalize(known.float(), dim=1)
    found = []
    for part in F.normalize(features.float(), dim=1).split(NEIGHBOUR_ROWS):
        similarity, place = (part @ known.t()).topk(neighbours, dim=1)
        votes = part.new_zeros(len(part), classes)
        votes.scatter_add_(1, labels[place], (similarity / temperature).softmax(dim=1))
        found.append(votes.argmax(dim=1))
    return torch.cat(found) if found else labels[:0]
