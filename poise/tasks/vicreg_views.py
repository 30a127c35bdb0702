"""What a VICReg run looks at: two views of a sample to train on, and a plain one for the probes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from poise.configs.errors import ConfigError
from poise.configs.vicreg import ViewsConfig
from poise.data import (
    Composed,
    HorizontalFlip,
    Masking,
    Noise,
    Placed,
    RandomResizedCrop,
    Samples,
    Scaling,
    View,
    batch_seed,
    vicreg_cifar_views,
    vicreg_views,
)
from poise.data.views.published import CIFAR10, IMAGENET
from poise.tasks.plain_batches import PlainBatches

Kinds = tuple[Tensor, ...]

PLAIN_SEED = 0  # of where the probes' samples are placed, whatever the run's seed


def training_views(config: ViewsConfig) -> tuple[View, View]:
    """Return what makes the first and the second view of a sample."""
    if config.name == "cifar":
        return vicreg_cifar_views(config.size)
    if config.name == "imagenet":
        return vicreg_views(config.size)
    view: View = Placed(config.size, config.gain, config.noise)
    if config.name == "noise":
        scaled = Scaling(1 - config.gain, 1 + config.gain)
        view = Composed((_floating, scaled, Noise(config.noise), Masking(config.masking)))
    return view, view


def plain_view(config: ViewsConfig) -> View:
    """Return what the probes look at: the sample as it is, normalised, or placed without noise."""
    if config.name == "placed":
        return Placed(config.size, gain=0.0, noise=0.0)
    plain: dict[str, View] = {"cifar": CIFAR10, "imagenet": IMAGENET, "noise": _floating}
    return plain[config.name]


def labelled_view(config: ViewsConfig) -> View:
    """Return what a classifier is trained on: less changed than a view, as supervised training has it."""
    if config.name in ("cifar", "imagenet"):
        normalise = CIFAR10 if config.name == "cifar" else IMAGENET
        return Composed((RandomResizedCrop(config.size, scale=(0.5, 1.0)), HorizontalFlip(0.5), normalise))
    return training_views(config)[0]


def plain_batches(
    samples: Samples[Any], config: ViewsConfig, size: int, times: int = 1
) -> PlainBatches[tuple[Kinds, Tensor]]:
    """Return all samples in batches, as the probes see them: (kinds of input, labels); `times` over where placed."""
    view = plain_view(config)

    def plain(part: Samples[Any], number: int) -> tuple[Kinds, Tensor]:
        generator = torch.Generator().manual_seed(batch_seed(PLAIN_SEED, number, 0))
        return tuple(view(kind, generator) for kind in kinds(part)), part.labels

    return PlainBatches(samples, size, plain, times if config.name == "placed" else 1)


def kinds(samples: Samples[Any]) -> Kinds:
    """Return the inputs of samples, one a kind."""
    return samples.inputs if isinstance(samples.inputs, tuple) else (samples.inputs,)


def seen_shapes(samples: Samples[Any], config: ViewsConfig) -> tuple[tuple[int, ...], ...]:
    """Return the shape of one sample of each kind as the encoders see it; refuse views that do not apply."""
    few = samples.select(slice(0, 2))
    generator = torch.Generator().manual_seed(PLAIN_SEED)
    try:
        shapes = tuple(tuple(plain_view(config)(kind, generator).shape[1:]) for kind in kinds(few))
        for view, kind in zip(training_views(config), _pair(kinds(few)), strict=True):
            view(kind, generator)
    except ValueError as error:
        raise ConfigError(f"views.name {config.name} does not fit the samples: {error}") from error
    if len(shapes) > 2:
        raise ConfigError(f"the samples have {len(shapes)} kinds of input; name two of them.")
    return shapes


def _pair(inputs: Kinds) -> tuple[Tensor, Tensor]:
    return inputs[0], inputs[-1]


def two_views(inputs: Kinds, views: tuple[View, View], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the views of both branches: of the same input, or each of its kind."""
    first, second = _pair(inputs)
    return views[0](first, generator), views[1](second, generator)


def _floating(x: Tensor, generator: torch.Generator) -> Tensor:
    return x.float() / 255 if x.dtype == torch.uint8 else x
