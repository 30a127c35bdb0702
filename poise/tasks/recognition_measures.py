"""How good predictions are: the loss of each head, sums that add up over batches, and the measures read off them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from poise.data import VOID
from poise.models import Predictions
from poise.objectives import confusion_matrix, correct_within, mean_iou, pixel_accuracy
from poise.tasks.base import Measures
from poise.tasks.recognition_views import Batch

WITHIN = 5  # of which predictions one must be right, for top-5 accuracy


def weighted_loss(
    predictions: Predictions, batch: Batch, weights: tuple[float, float], smoothing: float
) -> tuple[Tensor, Measures]:
    """Return the weighted cross-entropies of both heads, each of them, and the accuracy on the batch."""
    x, labels, pixels = batch
    total = x.new_zeros(())
    measures: Measures = {}
    if predictions.classes is not None and labels is not None:
        loss = F.cross_entropy(predictions.classes, labels, label_smoothing=smoothing)
        total = total + weights[0] * loss
        measures["class_loss"] = loss.detach()
        measures["batch_accuracy"] = partial(_share, predictions.classes.detach(), labels)
    if predictions.pixels is not None and pixels is not None:
        loss = pixel_loss(predictions.pixels, pixels)
        total = total + weights[1] * loss
        measures["pixel_loss"] = loss.detach()
    return total, measures


def summed(predictions: Predictions, batch: Batch) -> dict[str, Tensor]:
    """Return confusion matrices and summed losses."""
    _, labels, pixels = batch
    found: dict[str, Tensor] = {}
    if predictions.classes is not None and labels is not None:
        logits = predictions.classes.float()
        found["classes"] = confusion_matrix(logits.argmax(dim=1), labels, logits.shape[1])
        found["class_loss"] = F.cross_entropy(logits, labels, reduction="sum")
        if logits.shape[1] > WITHIN:
            found["within"] = correct_within(logits, labels, WITHIN)
    if predictions.pixels is not None and pixels is not None:
        logits = predictions.pixels.float()
        found["pixels"] = confusion_matrix(logits.argmax(dim=1), pixels, logits.shape[1], VOID)
        found["pixel_loss"] = pixel_loss(logits, pixels) * (pixels != VOID).sum()
    return found


def quality(totals: Mapping[str, Tensor], weights: tuple[float, float], split: str) -> dict[str, float]:
    """Return accuracies, mean IoU, and the loss that training minimises, from sums over a split."""
    found: dict[str, float] = {}
    losses: list[float] = []
    if (matrix := totals.get("classes")) is not None:
        found[f"{split}_accuracy"] = pixel_accuracy(matrix)
        if "within" in totals:
            found[f"{split}_top5_accuracy"] = float(totals["within"] / matrix.sum())
        losses.append(weights[0] * float(totals["class_loss"] / matrix.sum()))
    if (matrix := totals.get("pixels")) is not None:
        found[f"{split}_mean_iou"] = mean_iou(matrix)
        found[f"{split}_pixel_accuracy"] = pixel_accuracy(matrix)
        losses.append(weights[1] * float(totals["pixel_loss"] / matrix.sum()))
    return {**found, f"{split}_loss": sum(losses)}


def pixel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over the pixels that are not void; 0 where all of them are."""
    total = F.cross_entropy(logits, labels, ignore_index=VOID, reduction="sum")
    return total / (labels != VOID).sum().clamp_min(1)


def _share(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(dim=1) == labels).float().mean())
