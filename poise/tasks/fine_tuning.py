"""A classifier trained whole on few labelled samples: from an encoder's weights, or from scratch."""

from __future__ import annotations

from math import cos, pi
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poise.data import Samples, View

BATCH = 64
WARMUP = 0.1  # of the steps


def fine_tune(
    encoder: nn.Module,
    features: int,
    samples: Samples[Tensor],
    view: View,
    *,
    steps: int,
    lr: float,
    seed: int,
    device: torch.device,
) -> nn.Module:
    """Train an encoder with a linear head on top by cross-entropy, and return both in evaluation mode.

    AdamW with warm-up and a cosine over batches of at most 64, an epoch after another; every batch sees views of its
    own. The encoder is changed: pass a copy. Batches, views and the head's weights are drawn from `seed`.
    """
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(features, len(samples.class_names))
    bound = features**-0.5
    for parameter in head.parameters():
        with torch.no_grad():
            parameter.copy_(2 * bound * torch.rand(parameter.shape, generator=generator) - bound)
    classifier = nn.Sequential(encoder, head).to(device).train()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr, weight_decay=1e-4)
    order: Tensor = torch.empty(0, dtype=torch.int64)
    size = min(BATCH, len(samples))
    for step in range(steps):
        if len(order) < size:
            order = torch.randperm(len(samples), generator=generator)
        picked, order = order[:size], order[size:]
        x, labels = view(samples.inputs[picked], generator).to(device), samples.labels[picked].to(device)
        for group in optimizer.param_groups:
            group["lr"] = lr * _factor(step, steps)
        loss = F.cross_entropy(classifier(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return classifier.eval()


def _factor(step: int, steps: int) -> float:
    warm = max(1, int(WARMUP * steps))
    return min(1.0, (step + 1) / warm) * 0.5 * (1 + cos(pi * max(0, step - warm) / max(1, steps - warm)))


def accuracy(classifier: nn.Module, batches: Any, kind: int, device: torch.device) -> float:
    """Return the share of samples that a classifier names rightly."""
    right = total = 0
    with torch.no_grad():
        for inputs, labels in batches:
            right += int((classifier(inputs[kind].to(device)).argmax(dim=1).cpu() == labels).sum())
            total += len(labels)
    return right / total
