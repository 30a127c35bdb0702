"""The network of a run that classifies, segments or does both, from its settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poise.configs.base import AdjointConfig, SolverConfig
from poise.configs.classify import ClassifierConfig
from poise.configs.errors import ConfigError
from poise.configs.recognition import MultiscaleConfig
from poise.models import MDEQ, Architecture, MultiscaleNet, ResNet
from poise.models.resnet import BasicBlock
from poise.tasks.errors import RunError
from poise.tasks.run_folder import RunFolder
from poise.tasks.solving import build_adjoint, build_solver
from poise.tasks.weights import read_weights

Network = MDEQ | MultiscaleNet | ResNet
HEADS = ("classifier.", "segmenter.", "head.")  # of networks of several resolutions, and of a ResNet
TASKS = ("classify", "segment", "multitask")


def build_network(
    model: MultiscaleConfig,
    solver: SolverConfig,
    eval_solver: SolverConfig,
    adjoint: AdjointConfig,
    in_channels: int,
    classes: int | None,
    pixel_classes: int | None,
) -> Network:
    """Return the network with fresh weights and the heads that are asked for, in channels-last."""
    if isinstance(model, ClassifierConfig) and model.kind == "resnet":
        stem = model.resnet_stem
        options: dict[str, Any] = {"width": model.width, "in_channels": in_channels, "n_classes": classes, "stem": stem}
        return _laid_out(ResNet(BasicBlock, model.blocks, **options))
    architecture = Architecture(
        model.channels,
        expansion=model.expansion,
        groups=model.groups,
        dropout=model.dropout,
        weight_norm=model.weight_norm,
        downsamplings=model.downsamplings,
        in_channels=in_channels,
        head_width=model.head_width,
        head_features=model.head_features,
    )
    heads: dict[str, Any] = {"classes": classes, "pixel_classes": pixel_classes}
    if model.kind == "explicit":
        return _laid_out(MultiscaleNet(architecture, model.layers, **heads))
    solving: dict[str, Any] = {
        "solver": build_solver(solver),
        "adjoint": build_adjoint(adjoint, solver),
        "eval_solver": build_solver(eval_solver),
    }
    return _laid_out(MDEQ(architecture, **heads, **solving))


def refuse_small(size: Sequence[int], model: MultiscaleConfig, pictures: str, remedy: str) -> None:
    """Raise a ConfigError where the coarsest scale of pictures of that height and width is less than a pixel.

    `pictures`, `remedy`: what the sentence says of them, and what to do beside making the network smaller.
    """
    scales = len(model.channels)
    if min(size) < 2 ** (scales - 1 + model.downsamplings):
        raise ConfigError(
            f"{pictures} have no {scales} scales with model.downsamplings {model.downsamplings}; pass fewer "
            f"model.channels, or {remedy}."
        )


def _laid_out(network: Any) -> Any:
    # Convolutions are faster with the channels last.
    return network.to(memory_format=torch.channels_last)


@torch.no_grad()
def start_from(network: nn.Module, run: str) -> None:
    """Copy stem and trunk of another run's network, and leave the heads as they are.

    Raises a ConfigError where there is no such run, it is of another kind, or its trunk is of another shape.
    """
    folder = RunFolder(Path(run).expanduser())
    try:
        task, _ = folder.read_config()
        if task not in TASKS:
            raise ConfigError(f"init_from {run} is a run of {task}; name one of {', '.join(TASKS)}.")
        saved = read_weights(folder)
    except RunError as error:
        raise ConfigError(f"init_from names no run to start from: {error}") from error
    own = {name: value for name, value in network.state_dict().items() if not name.startswith(HEADS)}
    given = {name: value for name, value in saved.items() if not name.startswith(HEADS)}
    for name in (*own, *given):
        mine, other = _shape(own, name), _shape(given, name)
        if mine != other:
            raise ConfigError(
                f"init_from {run} does not fit: {name} is {other} there and {mine} here; give model and data the "
                "shapes of that run."
            )
    for name, value in own.items():
        value.copy_(given[name])


def _shape(weights: dict[str, Tensor], name: str) -> str:
    return "x".join(map(str, weights[name].shape)) or "a number" if name in weights else "missing"
