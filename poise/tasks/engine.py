"""Lightning's Trainer from settings, and its messages out of the way."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from poise.configs.base import TrainerConfig
from poise.configs.errors import ConfigError
from poise.tasks.checkpoints import AtomicCheckpointIO


def build_trainer(
    config: TrainerConfig, folder: str, loggers: Sequence[Logger], callbacks: Sequence[Callback]
) -> L.Trainer:
    """Return the Trainer of a run; raise a ConfigError for a device or strategy that is not there."""
    devices, num_nodes = _devices(config)
    with refused_settings((MisconfigurationException, TypeError, ValueError)):
        return _trainer(config, devices, num_nodes, folder, loggers, callbacks)


@contextmanager
def refused_settings(errors: tuple[type[Exception], ...] = (MisconfigurationException,)) -> Iterator[None]:
    """Turn what Lightning raises of settings that cannot be had into a ConfigError."""
    try:
        yield
    except errors as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ConfigError(f"the trainer settings cannot be had here: {reason}.") from error


def _trainer(
    config: TrainerConfig,
    devices: int | str,
    num_nodes: int,
    folder: str,
    loggers: Sequence[Logger],
    callbacks: Sequence[Callback],
) -> L.Trainer:
    return L.Trainer(
        accelerator=config.accelerator,
        devices=devices,
        num_nodes=num_nodes,
        strategy=config.strategy,
        precision=config.precision,
        max_steps=config.max_steps,
        max_epochs=-1,  # the one epoch never ends
        accumulate_grad_batches=config.accumulate_grad_batches,
        gradient_clip_val=config.gradient_clip_val,
        # Lightning counts batches here.
        val_check_interval=config.val_check_interval * config.accumulate_grad_batches,
        check_val_every_n_epoch=None,
        limit_val_batches=config.limit_val_batches,
        log_every_n_steps=config.log_every_n_steps,
        deterministic=config.deterministic,
        num_sanity_val_steps=0,
        enable_checkpointing=False,  # `Checkpoints` saves, at the same places after a resumption
        enable_progress_bar=False,
        enable_model_summary=False,
        # Tensors made in inference mode, a cached table of positions say, could not be used in training afterwards.
        inference_mode=False,
        logger=list(loggers),
        callbacks=list(callbacks),
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
    )


def _devices(config: TrainerConfig) -> tuple[int | str, int]:
    """Return devices and nodes; under torchrun `auto` is what it started, which Lightning insists on."""
    local, world = os.environ.get("LOCAL_WORLD_SIZE"), os.environ.get("WORLD_SIZE")
    if config.devices == "auto" and local and world and "TORCHELASTIC_RUN_ID" in os.environ:
        return int(local), int(world) // int(local)
    if isinstance(config.devices, str) and config.devices.isdigit():
        return int(config.devices), config.num_nodes
    return config.devices, config.num_nodes


@contextmanager
def quiet_engine() -> Iterator[None]:
    """Keep Lightning's notes on hardware and its advice on data loaders from the user's screen."""
    names = ("lightning", "lightning.pytorch", "lightning.fabric")
    before: dict[str, Any] = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # By category, not by module: what solves have to say is attributed to whoever called the model, Lightning too.
        for category in (PossibleUserWarning, FutureWarning, DeprecationWarning):
            warnings.simplefilter("ignore", category)
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)
