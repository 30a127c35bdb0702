"""What a run shows while it trains, and the measures that it logs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from poise.tasks.base import Task
from poise.tasks.process import rank

# Lines of a run whose output is no terminal.
LINES = 20

# Seconds between the lines of a long preparation.
PATIENCE = 5.0


class Preparation:
    """Prints how far the reading of a long text is, a line every few seconds: nothing for what is done by then."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream = stream
        self.clock = clock
        self._doing = ""
        self._began = self._spoke = 0.0

    def __call__(self, doing: str, done: int, total: int) -> None:
        """Hear that of `total` characters `done` are."""
        now = self.clock()
        if doing != self._doing:
            self._doing, self._began, self._spoke = doing, now, now
        elif now - self._spoke >= PATIENCE and rank() == 0:
            self._spoke = now
            left = (now - self._began) / done * (total - done)
            print(f"{doing}: {done / total:.0%}  {_minutes(left)} left", file=self.stream or sys.stderr, flush=True)


class MeasureLog(L.Callback):
    """Times training steps, and writes the measures of the first step and every n-th one to the loggers."""

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = every_n_steps
        self.latest: dict[str, float] = {}
        self._started = (0.0, 0.0)
        self._logged = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave a resumed step to the rows that are there."""
        self._logged = trainer.global_step

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clocks."""
        self._started = (time.perf_counter(), time.process_time())

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clocks and log."""
        assert isinstance(pl_module, Task)
        pl_module.cost.train_seconds += time.perf_counter() - self._started[0]
        pl_module.cost.train_cpu_seconds += time.process_time() - self._started[1]
        step = trainer.global_step
        if step == self._logged or not (step == 1 or step % self.every_n_steps == 0 or step == trainer.max_steps):
            return
        self._logged = step
        values = {name: float(value() if callable(value) else value) for name, value in pl_module.measures.items()}
        pl_module.refuse_nan(values["loss"])
        self.latest = {
            **values,
            **pl_module.drain_training(),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "train_seconds": pl_module.cost.train_seconds,
            "train_cpu_seconds": pl_module.cost.train_cpu_seconds,
        }
        for logger in trainer.loggers:
            logger.log_metrics(self.latest, step=step)

    def describe(self) -> str:
        """Return the latest measures in a few words; evaluations as forward + backward a solve."""
        forms = {"loss": ".3f", "residual": ".1e"}
        parts = [f"{name} {self.latest[name]:{form}}" for name, form in forms.items() if name in self.latest]
        kinds = [kind for kind in ("forward_evaluations", "backward_evaluations") if kind in self.latest]
        if kinds:
            parts.append("evaluations " + "+".join(f"{self.latest[kind]:.1f}" for kind in kinds))
        return "  ".join(parts)


class ProgressDisplay(L.Callback):
    """A bar on a terminal; else a line every so many steps."""

    def __init__(self, measures: MeasureLog, stream: TextIO | None = None) -> None:
        self.measures = measures
        self.stream = stream or sys.stderr
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._began = (0.0, 0)  # seconds and steps that were trained before

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin at the step that was resumed from."""
        assert isinstance(pl_module, Task)
        self._began = (pl_module.cost.train_seconds, trainer.global_step)
        if trainer.is_global_zero and self.stream.isatty():
            self._bar = Progress(
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(compact=True),
                console=Console(file=self.stream),
            )
            total, done = trainer.max_steps, trainer.global_step
            self._task = self._bar.add_task("training", total=total, completed=done)
            self._bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on."""
        step = trainer.global_step
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=self.measures.describe())
        elif (
            trainer.is_global_zero
            and step != self._began[1]
            and step % max(self.measures.every_n_steps, trainer.max_steps // LINES) == 0
        ):
            assert isinstance(pl_module, Task)
            began, first = self._began
            left = (pl_module.cost.train_seconds - began) / (step - first) * (trainer.max_steps - step)
            print(
                f"step {step} of {trainer.max_steps}  {self.measures.describe()}  {_minutes(left)} left",
                file=self.stream,
                flush=True,
            )

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say that training waits."""
        if self._bar is not None:
            self._bar.update(self._task, description="validating", refresh=True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the quality."""
        assert isinstance(pl_module, Task)
        quality = pl_module.latest_quality
        line = "  ".join(f"{pl_module.quality_names.get(name, name)} {value:.4g}" for name, value in quality.items())
        if self._bar is not None:
            self._bar.update(self._task, description=self.measures.describe())
            self._bar.console.print(f"step {trainer.global_step}  {line}", highlight=False)
        elif trainer.is_global_zero:
            print(f"step {trainer.global_step}  {line}", file=self.stream, flush=True)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the bar down."""
        self._close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give the terminal back before anything is said."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
