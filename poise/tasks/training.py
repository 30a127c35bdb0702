"""One training run from settings to report, resumable at any moment."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from poise.configs.errors import ConfigError
from poise.configs.fields import to_dict
from poise.report import write
from poise.tasks.activations import measure_activations
from poise.tasks.base import Task
from poise.tasks.checkpoints import Checkpoints, newest_readable, step_of
from poise.tasks.engine import build_trainer, quiet_engine, refused_settings
from poise.tasks.evaluation import measure
from poise.tasks.metrics_file import MetricsFile
from poise.tasks.peers import keep, table
from poise.tasks.process import rank, say
from poise.tasks.progress import MeasureLog, ProgressDisplay
from poise.tasks.regularization import check_jitter
from poise.tasks.run_folder import RunFolder
from poise.tasks.summary import summarise, summary_table
from poise.tasks.weights import save_weights


def train(
    task_type: type[Task],
    config: Any,
    folder: RunFolder,
    *,
    resume: bool = False,
    overwrite: bool = False,
    peers: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Train a task, write its run folder and return the summary (of the first process; elsewhere it is empty).

    `resume`: go on from the last checkpoint, to the same weights bit for bit as without the stop; where there is none,
    from the start. `overwrite`: remove the run that lies there, once the data has been read. `peers`: what finished
    runs of the task ended with, to compare with in the summary and the report.
    """
    if config.trainer.fast_dev_run:
        config = replace(
            config, trainer=replace(config.trainer, max_steps=1, limit_val_batches=1, val_check_interval=1)
        )
    if config.trainer.threads is not None:
        torch.set_num_threads(config.trainer.threads)
    checkpoint = newest_readable(folder, lambda text: warnings.warn(text, stacklevel=3)) if resume else None
    with quiet_engine():
        L.seed_everything(config.seed, workers=True, verbose=False)
        task = task_type.create(config, folder if checkpoint is not None else None)
        check_jitter(task.model, config.regularization)
        _warn_if_shallow(task)
        trainer, saving = _engine(task, folder)
        if rank() == 0:  # nothing is touched before data and devices are known to be there
            _prepare_folder(task, folder, overwrite)
            if peers:
                keep(folder, peers)
            _announce(folder, checkpoint, resume)
        _fit(task, trainer, saving, checkpoint)
        steps = trainer.global_step
        limit = config.trainer.limit_val_batches
        whole = (isinstance(limit, float) and limit == 1.0) or config.trainer.fast_dev_run  # 1 is one batch
        if not (whole and task.latest_quality_step == steps):
            measure(task, "valid", config.trainer, folder)
            task.log_quality(trainer.loggers, steps)
        if not trainer.is_global_zero:
            return {}
        return _finish(task, trainer, folder, steps)


def _warn_if_shallow(task: Task) -> None:
    shallow, steps = task.config.pretraining.steps, task.config.trainer.max_steps
    if task.solves and shallow >= steps and not task.config.trainer.fast_dev_run:
        warnings.warn(
            f"pretraining.steps is {shallow} and trainer.max_steps {steps}, so that no step solves for an equilibrium; "
            "pass fewer of the first, or more of the second.",
            stacklevel=4,
        )


def _prepare_folder(task: Task, folder: RunFolder, overwrite: bool) -> None:
    if overwrite:
        folder.clear()
    folder.write_config(task.task_name, to_dict(task.config))
    task.save_inference(folder)


def _announce(folder: RunFolder, checkpoint: Path | None, resume: bool) -> None:
    if checkpoint is not None:
        say(f"going on in {folder.path} from step {step_of(checkpoint)}")
    elif resume:
        say(f"no checkpoint to go on from; starting in {folder.path}")
    else:
        say(f"training in {folder.path}")


def _engine(task: Task, folder: RunFolder) -> tuple[L.Trainer, Checkpoints]:
    settings = task.config.trainer
    measures = MeasureLog(settings.log_every_n_steps)
    saving = Checkpoints(
        folder,
        settings.checkpoint_every_n_steps,
        settings.val_check_interval,
        f"poise train {task.task_name} --out {folder.path} --resume",
    )
    # Measures before what shows them, and both before the checkpoint that keeps the clocks.
    callbacks = [measures, ProgressDisplay(measures), saving]
    return build_trainer(settings, str(folder.path), _loggers(task, folder), callbacks), saving


def _loggers(task: Task, folder: RunFolder) -> list[Logger]:
    loggers: list[Logger] = [MetricsFile(folder)]
    if task.config.trainer.logger == "tensorboard":
        if find_spec("tensorboard") is None:
            raise ConfigError("trainer.logger is tensorboard, which is not installed; run pip install 'poise[tb]'.")
        loggers.append(TensorBoardLogger(folder.path, name="", version=folder.tensorboard.name))
    return loggers


def _fit(task: Task, trainer: L.Trainer, saving: Checkpoints, checkpoint: Path | None) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, MetricsFile):
            logger.begin(None if checkpoint is None else step_of(checkpoint))
    with _saving_on_interrupt(saving, trainer.world_size), refused_settings():
        trainer.fit(task, ckpt_path=None if checkpoint is None else str(checkpoint))


@contextmanager
def _saving_on_interrupt(saving: Checkpoints, processes: int) -> Iterator[None]:
    """Let the first Ctrl-C finish and save the step; the second stops at once.

    Processes that train together would not stop at the same step, so there Ctrl-C just stops.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def request(signum: int, frame: Any) -> None:
        if saving.stop_requested:
            raise KeyboardInterrupt
        saving.stop_requested = True

    if processes == 1:
        signal.signal(signal.SIGINT, request)
    try:
        yield
    except SystemExit:  # what Lightning makes of an interrupt
        raise KeyboardInterrupt(f"interrupted; go on from the last checkpoint with: {saving.resume_command}") from None
    finally:
        signal.signal(signal.SIGINT, before)


def _finish(task: Task, trainer: L.Trainer, folder: RunFolder, steps: int) -> dict[str, Any]:
    """Save, measure and show the trained model."""
    save_weights(task.model, folder)
    task.to(trainer.strategy.root_device)
    with trainer.precision_plugin.forward_context():
        activations = measure_activations(task)
    summary = summarise(task, steps, task.latest_quality, activations)
    folder.write_json(folder.summary, summary)
    task.eval()
    analysis = task.analyse()
    folder.write_json(folder.analysis, analysis)
    write(task.build_page(folder), folder.report)
    if sample := task.show(analysis):
        say(f"\n{sample}")
    said = [summary_table(summary, task.quality_names), table(folder), f"report: {folder.report}"]
    say("\n" + "\n\n".join(part for part in said if part))
    return summary
