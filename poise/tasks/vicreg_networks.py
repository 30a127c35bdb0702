"""The network of a VICReg run, from its settings and the shapes of what it sees."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import torch

from poise.configs.errors import ConfigError
from poise.configs.vicreg import EncoderConfig, VICRegConfig
from poise.models import ConvEncoder, DenseEncoder, DEQConvEncoder, DEQDenseEncoder, Expander, ResNet, VICReg
from poise.models.resnet import BasicBlock
from poise.tasks.solving import build_adjoint, build_solver

Shapes = tuple[tuple[int, ...], ...]


def build_model(config: VICRegConfig, shapes: Shapes) -> VICReg:
    """Return the network with fresh weights; `shapes`: of a sample of each kind of input."""
    own, other = config.model, config.other
    if len(shapes) > 1 and other.kind == "shared":
        raise ConfigError("other.kind is shared, and the samples have two kinds of input; pass separate, or a kind.")
    first = build_encoder(config, own, shapes[0])
    expander = _expander(own, first)
    if other.kind == "shared":
        return _laid_out(VICReg(first, expander))
    kind = own.kind if other.kind == "separate" else other.kind
    chosen = replace(own, kind=kind, width=other.width or own.width)
    second = build_encoder(config, chosen, shapes[-1])
    if other.shared_expander and first.features != second.features:
        raise ConfigError(
            f"other.shared_expander is true, and the encoders return {first.features} and {second.features} features; "
            "pass model.features, which both then end in."
        )
    return _laid_out(VICReg(first, expander, second, None if other.shared_expander else _expander(own, second)))


def build_encoder(config: VICRegConfig, model: EncoderConfig, shape: tuple[int, ...]) -> Any:
    """Return an encoder of samples of one shape; its `features` say how many it returns."""
    width = model.width
    solving: dict[str, Any] = {
        "solver": build_solver(config.solver),
        "adjoint": build_adjoint(config.adjoint, config.solver),
        "eval_solver": build_solver(config.eval_solver),
    }
    if model.kind in ("dense", "deq"):
        if model.features is None:
            raise ConfigError(f"model.features is null, and a {model.kind} encoder ends in a linear layer; pass some.")
        if model.kind == "dense":
            sizes = (prod(shape), width, width, model.features)
            return DenseEncoder(sizes, batch_norm=model.batch_norm)
        options: dict[str, Any] = {"bound": model.bound, "batch_norm": model.batch_norm, **solving}
        return DEQDenseEncoder(prod(shape), width, model.features, **options)
    if len(shape) != 3:
        raise ConfigError(
            f"a {model.kind} encoder looks at pictures, and samples here are of shape {shape}; pass dense or deq."
        )
    channels = shape[0]
    strides = (2,) * (len(model.stem) + 1)
    if model.kind == "conv":
        return ConvEncoder(channels, width, model.features, strides=strides, stem=model.stem)
    if model.kind == "deq-conv":
        return DEQConvEncoder(channels, width, model.features, strides=strides, stem=model.stem, **solving)
    stem = model.resnet_stem
    return ResNet(BasicBlock, model.blocks, width=width, in_channels=channels, n_classes=model.features, stem=stem)


def _expander(model: EncoderConfig, encoder: Any) -> Expander:
    return Expander((encoder.features, *model.expander), normalised=model.batch_norm)


def _laid_out(model: VICReg) -> VICReg:
    # Convolutions are faster with the channels last; dense layers have no weight that this moves.
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
