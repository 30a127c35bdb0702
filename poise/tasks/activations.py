"""The bytes that a task holds for the backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from poise.data import batch_seed
from poise.nn import activation_bytes
from poise.tasks.base import Task
from poise.tasks.solving import equilibria


def measure_activations(task: Task) -> dict[str, int]:
    """Return the bytes that one training batch holds for the backward: all up to the loss, and the trunk alone.

    Parameters do not count. Buffers such as running statistics are left as they were.
    """
    batch = _to_device(task.training_batch(0), task.device)
    buffers = {name: buffer.clone() for name, buffer in task.model.named_buffers()}
    parameters = list(task.model.parameters())
    was_training = task.model.training
    task.model.train()
    torch.manual_seed(batch_seed(task.config.seed, 0, 0))
    found = {"activation_bytes": activation_bytes(lambda: task.training_loss(batch)[0], parameters)}
    if task.trunk(batch) is not None:
        found["block_activation_bytes"] = activation_bytes(lambda: task.trunk(batch), parameters)
    task.model.train(was_training)
    for name, buffer in task.model.named_buffers():
        buffer.copy_(buffers[name])
    for layer in equilibria(task.model):
        layer.counters.reset()
    return found


def _to_device(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device)
    return type(batch)(_to_device(item, device) for item in batch) if isinstance(batch, tuple | list) else batch
