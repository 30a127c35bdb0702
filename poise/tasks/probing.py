"""What an encoder's features are worth: they are collected once, and classifiers are fitted to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import mean

import torch
from torch import Tensor, nn

from poise.data import Samples
from poise.objectives import LinearProbe, fit_linear_probe
from poise.tasks.vicreg_views import Kinds

SETTLING = 20  # batches by which batch norm's statistics of random weights settle


@torch.no_grad()
def features_of(
    encoder: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Kinds, Tensor]],
    kind: int,
    class_names: tuple[str, ...],
    device: torch.device,
) -> Samples[Tensor]:
    """Return the features (N, F) of one kind of input over batches, with their labels."""
    found = [(encoder(inputs[kind].to(device)), labels.to(device)) for inputs, labels in batches]
    return Samples(torch.cat([x.float() for x, _ in found]), torch.cat([y for _, y in found]), class_names)


@dataclass(frozen=True)
class Probes:
    """What was fitted to the features of the training samples: all of them, and a few a class in several draws."""

    known: Samples[Tensor]
    linear: LinearProbe
    few: dict[int, list[LinearProbe]]

    def few_accuracy(self, per_class: int, features: Tensor, labels: Tensor) -> float:
        """Return the mean accuracy over the draws of so many labels a class."""
        return mean(probe.accuracy(features, labels) for probe in self.few[per_class])


def fit_probes(known: Samples[Tensor], few: tuple[int, ...], draws: int, seed: int) -> Probes:
    """Fit the probes; the few labels are drawn with seeds from `seed` on."""
    classes = len(known.class_names)

    def drawn(per_class: int, draw: int) -> LinearProbe:
        picked = known.select(known.few(per_class, torch.Generator().manual_seed(seed + draw)))
        return fit_linear_probe(picked.inputs, picked.labels, classes)

    return Probes(
        known,
        fit_linear_probe(known.inputs, known.labels, classes),
        {per_class: [drawn(per_class, draw) for draw in range(draws)] for per_class in few},
    )


@torch.no_grad()
def settle(encoder: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Return an encoder in evaluation mode whose batch norm has seen some batches, as random weights need."""
    encoder.train()
    for batch in batches:
        encoder(batch)
    return encoder.eval()
