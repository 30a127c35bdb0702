"""How well classes are told apart, pixel by pixel or picture by picture, from a confusion matrix that adds up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassScore:
    """What became of one class; a share of nothing is NaN."""

    name: str
    pixels: int
    """labelled with it"""
    recall: float
    """of the pixels labelled with it, the share predicted so"""
    precision: float
    """of the pixels predicted as it, the share labelled so"""
    iou: float
    """pixels of both over pixels of either"""


def confusion_matrix(predicted: Tensor, labels: Tensor, classes: int, void: int | None = None) -> Tensor:
    """Return how often each label (row) was predicted as each class (column), (classes, classes) int64.

    `predicted` and `labels`: integers of one shape, such as (B, H, W). Where the label is `void` nothing counts. The
    matrices of batches and of processes add up. Raises ValueError for shapes that differ and classes out of range.
    """
    if predicted.shape != labels.shape or predicted.is_floating_point() or labels.is_floating_point():
        raise ValueError(
            f"predictions {predicted.dtype} of shape {tuple(predicted.shape)} do not fit labels {labels.dtype} of "
            f"shape {tuple(labels.shape)}; pass integers of one shape, such as logits.argmax(dim=1)."
        )
    predicted, labels = predicted.flatten().long(), labels.flatten().long()
    if void is not None:
        counted = labels != void
        predicted, labels = predicted[counted], labels[counted]
    for name, values in (("predictions", predicted), ("labels", labels)):
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < classes:
            raise ValueError(
                f"the {name} run from {int(values.min())} to {int(values.max())}, but there are {classes} classes; "
                "number them from 0, and name what counts for none as void."
            )
    return torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)


def class_iou(confusion: Tensor) -> Tensor:
    """Return the intersection over union of each class, (K,) float64; NaN where labels and predictions have none.

    Everingham et al. (2015), "The Pascal visual object classes challenge: a retrospective", section 3.4.
    """
    confusion = confusion.double()
    both = confusion.diagonal()
    return both / (confusion.sum(dim=0) + confusion.sum(dim=1) - both)


def mean_iou(confusion: Tensor) -> float:
    """Return the mean of `class_iou` over the classes that labels or predictions have; NaN where nothing counted."""
    return float(class_iou(confusion).nanmean())


def pixel_accuracy(confusion: Tensor) -> float:
    """Return the share of pixels (or samples) predicted as they are labelled; NaN where nothing counted."""
    confusion = confusion.double()
    return float(confusion.diagonal().sum() / confusion.sum())


def class_scores(confusion: Tensor, class_names: Sequence[str]) -> tuple[ClassScore, ...]:
    """Return the table of all classes in their order."""
    if confusion.shape != (len(class_names), len(class_names)):
        raise ValueError(
            f"a confusion matrix of shape {tuple(confusion.shape)} is not of {len(class_names)} classes; name them all."
        )
    right, iou = confusion.double().diagonal(), class_iou(confusion)
    labelled, predicted = confusion.sum(dim=1), confusion.sum(dim=0)
    columns = (labelled, right / labelled, right / predicted, iou)
    rows = zip(class_names, *(column.tolist() for column in columns), strict=True)
    return tuple(ClassScore(name, *row) for name, *row in rows)
