"""A run's weights as safetensors, for inference; where training was stopped, those of its last checkpoint."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_model
from torch import Tensor, nn

from poise.tasks.checkpoints import newest_readable, step_of
from poise.tasks.errors import RunError
from poise.tasks.run_folder import RunFolder, atomic_path

PREFIX = "model."  # of a task's model in a checkpoint


def save_weights(model: nn.Module, folder: RunFolder) -> None:
    """Write the weights; tied ones once."""
    with atomic_path(folder.weights) as draft:
        save_model(model, str(draft))
        shutil.copymode(folder.config, draft)  # safetensors makes files that only their owner reads


def load_weights(model: nn.Module, folder: RunFolder) -> None:
    """Read a run's weights; raise a RunError where there are none or they do not fit the settings."""
    if folder.weights.is_file():
        try:
            load_model(model, folder.weights)
        except (SafetensorError, RuntimeError, OSError) as error:
            raise _unusable(folder.weights, error) from error
        return
    checkpoint, state = _last_checkpoint(folder)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise _unusable(checkpoint, error) from error


def read_weights(folder: RunFolder) -> dict[str, Tensor]:
    """Return a run's weights by name, for a network that may differ; raise a RunError where there are none."""
    if not folder.weights.is_file():
        return _last_checkpoint(folder)[1]
    try:
        return load_file(folder.weights)
    except (SafetensorError, OSError) as error:
        raise _unusable(folder.weights, error) from error


def _last_checkpoint(folder: RunFolder) -> tuple[Path, dict[str, Tensor]]:
    """Return the newest checkpoint that can be read, and the model's weights in it."""
    checkpoint = newest_readable(folder, lambda text: warnings.warn(text, stacklevel=4))
    if checkpoint is None:
        raise RunError(f"{folder.path} holds no weights yet; train it, or --resume it, first.")
    warnings.warn(f"the run is not finished; these are its weights after step {step_of(checkpoint)}.", stacklevel=3)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    return checkpoint, {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}


def _unusable(path: Path, error: Exception) -> RunError:
    return RunError(
        f"the weights in {path} do not load ({str(error).strip().splitlines()[0]}); restore them or train again."
    )
