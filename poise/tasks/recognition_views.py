"""What a run that classifies or segments sees: changed pictures to train on, plain ones to be measured on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from poise.configs.classify import ClassifyViewsConfig
from poise.configs.recognition import Normalisation
from poise.configs.segment import SegmentViewsConfig
from poise.data import (
    ColourJitter,
    Composed,
    ComposedScenes,
    HorizontalFlip,
    Normalise,
    RandomCrop,
    RandomResizedCrop,
    RandomScaledCrop,
    Samples,
    SceneFlip,
    SceneView,
    View,
)
from poise.data.views.published import CIFAR10, IMAGENET
from poise.tasks.plain_batches import PlainBatches
from poise.tasks.recognition_samples import Heads

MEASURED = 1000  # training pictures whose mean and deviation pictures are normalised by
AT_ONCE = 20  # decoded, since pictures may be large
SMALLEST = 1e-3  # deviation, so that a constant channel stays finite

# Pictures, and where the task looks at them the class of each and the classes of its pixels.
Batch = tuple[Tensor, Tensor | None, Tensor | None]


def normalisation(name: Normalisation, train: Samples[Any]) -> Normalise:
    """Return what normalises pictures: as published, or by the first training pictures."""
    if name != "data":
        return CIFAR10 if name == "cifar10" else IMAGENET
    channels = train.inputs.shape[1]
    plain = Normalise((0.0,) * channels, (1.0,) * channels)
    first = train.restrict(slice(0, MEASURED))
    total, squares = torch.zeros(2, channels, dtype=torch.float64)
    for part in first.batches(AT_ONCE):
        x = plain(part.inputs).double()
        total += x.sum(dim=(0, 2, 3))
        squares += x.square().sum(dim=(0, 2, 3))
    number = first.inputs.shape[0] * first.inputs.shape[2] * first.inputs.shape[3]
    mean = total / number
    deviation = (squares / number - mean.square()).clamp_min(0).sqrt().clamp_min(SMALLEST)
    return Normalise(tuple(mean.tolist()), tuple(deviation.tolist()))


def classification_view(config: ClassifyViewsConfig, size: tuple[int, int], normalise: Normalise) -> View:
    """Return what training sees of a picture of that height and width."""
    views: list[View] = []
    if config.size is not None:
        views.append(RandomResizedCrop(config.size, config.scale))
    elif config.padding:
        views.append(RandomCrop(size, config.padding))
    if config.flip:
        views.append(HorizontalFlip(0.5))
    return Composed((*views, *_colours(config.colour), normalise))


def scene_view(config: SegmentViewsConfig, normalise: Normalise) -> SceneView:
    """Return what training sees of a picture and its label map."""
    both: list[SceneView] = []
    if config.size is not None:
        both.append(RandomScaledCrop(config.size, config.scale))
    if config.flip:
        both.append(SceneFlip(0.5))
    return ComposedScenes(tuple(both), (*_colours(config.colour), normalise))


def _colours(strength: float) -> tuple[View, ...]:
    return (ColourJitter(strength, strength, strength, 0.0, probability=1.0),) if strength else ()


def batch_of(inputs: Tensor, labels: Tensor, scenes: Tensor | None, heads: Heads) -> Batch:
    """Return a batch with the labels that a task looks at; `labels` are label maps where it looks at pixels."""
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    if not heads.pixels:
        return inputs, labels, None
    return inputs, scenes if heads.classes else None, labels


def plain_batches(samples: Samples[Any], normalise: Normalise, size: int, heads: Heads) -> PlainBatches[Batch]:
    """Return all samples in batches, as they are measured: normalised and not changed otherwise."""

    def plain(part: Samples[Any], number: int) -> Batch:
        return batch_of(normalise(part.inputs), part.labels, part.scene_labels, heads)

    return PlainBatches(samples, size, plain)
