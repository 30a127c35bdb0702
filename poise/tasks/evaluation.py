"""Measure a task on a whole split."""

from __future__ import annotations

from dataclasses import replace

from poise.configs.base import TrainerConfig
from poise.tasks.base import Task
from poise.tasks.engine import build_trainer, quiet_engine
from poise.tasks.run_folder import RunFolder


def measure(task: Task, split: str, config: TrainerConfig, folder: RunFolder) -> dict[str, float]:
    """Return the quality of a task on all of a split, whatever part of it validation takes during training."""
    if not config.fast_dev_run:
        config = replace(config, limit_val_batches=1.0)
    with quiet_engine():
        trainer = build_trainer(config, str(folder.path), loggers=[], callbacks=[])
        before, task.split = task.split, split
        try:
            trainer.validate(task, verbose=False)
        finally:
            task.split = before
    return task.latest_quality
