"""What features are worth: a linear classifier and the nearest neighbours, on features that are not trained by it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ITERATIONS = 300  # of L-BFGS at most
TOLERANCE = 1e-6  # of the gradient's largest entry, per sample
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


class OnlineProbe(nn.Module):
    """A linear classifier of features that change while an encoder is trained, which it does not touch.

    It follows the moments of features and labels by exponential averages and solves ridge regression when it is asked,
    so that it has no optimiser, no learning rate and no gradient that could reach the encoder or be clipped with its.

    Args:
        features: numbers a sample.
        classes: how many.
        decay: of what is known a batch; 0.98 looks back about 50 batches.
        ridge: added to the variances of standardised features.
    """

    mean: Tensor
    covariance: Tensor
    shares: Tensor
    cross: Tensor
    seen: Tensor

    def __init__(self, features: int, classes: int, decay: float = 0.98, ridge: float = 0.01) -> None:
        super().__init__()
        if not 0 <= decay < 1 or not ridge > 0:
            raise ValueError(
                f"OnlineProbe(decay={decay}, ridge={ridge}) follows nothing; pass decay in [0, 1) and ridge above 0."
            )
        self.decay = decay
        self.ridge = ridge
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("covariance", torch.zeros(features, features))
        self.register_buffer("shares", torch.zeros(classes))
        self.register_buffer("cross", torch.zeros(features, classes))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Take a batch of features (B, F) with its labels (B,) into the moments."""
        x = features.float()
        y = F.one_hot(labels, len(self.shares)).to(x)
        # The first batches weigh as in a plain mean, so that the start at zero is forgotten.
        self.seen = self.seen + 1
        part = (1 / self.seen.to(x)).clamp_min(1 - self.decay)
        mean, shares = x.mean(dim=0), y.mean(dim=0)
        centred, moved, changed = x - mean, mean - self.mean, shares - self.shares
        # Deviations from the means of their own batch and the shift of the means apart: nothing large is subtracted.
        between = part * (1 - part)
        self.covariance = torch.lerp(self.covariance, centred.t() @ centred / len(x), part)
        self.covariance = self.covariance + between * torch.outer(moved, moved)
        self.cross = torch.lerp(self.cross, centred.t() @ (y - shares) / len(x), part)
        self.cross = self.cross + between * torch.outer(moved, changed)
        self.mean, self.shares = torch.lerp(self.mean, mean, part), torch.lerp(self.shares, shares, part)

    @torch.no_grad()
    def fitted(self) -> LinearProbe:
        """Return the ridge regression of the labels on the standardised features that were seen."""
        deviation = self.covariance.diagonal().clamp_min(0).sqrt().clamp_min(1e-6)
        correlation = self.covariance / torch.outer(deviation, deviation)
        correlation = correlation + self.ridge * torch.eye(len(deviation)).to(correlation)
        weight = torch.linalg.solve(correlation, self.cross / deviation[:, None])
        return LinearProbe(self.mean, deviation, weight.t(), self.shares)


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
