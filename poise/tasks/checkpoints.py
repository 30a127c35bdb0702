"""Checkpoints that are whole or absent, load without running code, and are kept in twos."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from poise.tasks.errors import DIVERGENCE_REMEDY, Interrupted, RunError
from poise.tasks.run_folder import RunFolder, atomic_path

KEPT = 2


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written whole or not at all and read as data only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the file, then rename."""
        with atomic_path(Path(path)) as draft:
            try:
                torch.save(checkpoint, draft)
            except RuntimeError as error:  # what torch makes of a write that the disk refused
                raise OSError(None, str(error).splitlines()[0]) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read tensors and plain values; anything else is refused, whatever the caller allows."""
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)


def checkpoint_path(folder: RunFolder, step: int) -> Path:
    """Return where the checkpoint of a step lies."""
    return folder.checkpoints / f"step-{step:08d}.ckpt"


def step_of(path: Path) -> int:
    """Return the step of a checkpoint by its name."""
    return int(path.stem.removeprefix("step-"))


def saved_checkpoints(folder: RunFolder) -> list[Path]:
    """Return the checkpoints of a run, the newest first."""
    found = [path for path in folder.checkpoints.glob("step-*.ckpt") if path.stem.removeprefix("step-").isdigit()]
    return sorted(found, key=step_of, reverse=True)


def newest_readable(folder: RunFolder, warn: Callable[[str], None]) -> Path | None:
    """Return the newest checkpoint that is whole, telling of each one that is not; None where there is none."""
    for path in saved_checkpoints(folder):
        reason = _damage(path)
        if reason is None:
            return path
        warn(f"the checkpoint {path} is damaged ({reason}) and is passed over.")
    return None


def _damage(path: Path) -> str | None:
    """Return what is wrong with a checkpoint file, or None. Reading alone does not look at the checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            return f"checksum of {broken}"
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever a damaged file provokes
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return None


class Checkpoints(L.Callback):
    """Save every so many steps, at the last one, and when asked to stop; keep the last two."""

    def __init__(self, folder: RunFolder, every_n_steps: int, val_check_interval: int, resume_command: str) -> None:
        self.folder = folder
        self.intervals = (every_n_steps, val_check_interval)  # a validation is long enough to be killed in
        self.resume_command = resume_command
        self.stop_requested = False
        self.saved_step = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Agree on the first process's folder."""
        self.folder = RunFolder(Path(trainer.strategy.broadcast(str(self.folder.path))))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the step that was resumed from."""
        self.saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time, between two optimizer steps."""
        step = trainer.global_step
        if step == self.saved_step:  # gradients are still being gathered
            return
        if self.stop_requested or step == trainer.max_steps or any(step % every == 0 for every in self.intervals):
            self._save(trainer, pl_module, step)
        self._stop_if_requested()

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stop here too; the step before the validation is saved."""
        self._stop_if_requested()

    def _stop_if_requested(self) -> None:
        if self.stop_requested:
            raise Interrupted(
                f"interrupted after step {self.saved_step}, which is saved; go on with: {self.resume_command}"
            )

    def _save(self, trainer: L.Trainer, pl_module: L.LightningModule, step: int) -> None:
        finite = all(bool(weight.isfinite().all()) for weight in pl_module.parameters())
        if not finite:
            raise RunError(
                f"the weights hold NaN or infinity after step {step}, so the run stops, its checkpoints are kept; "
                f"{DIVERGENCE_REMEDY}."
            )
        trainer.save_checkpoint(checkpoint_path(self.folder, step))
        self.saved_step = step
        if trainer.is_global_zero:
            for path in saved_checkpoints(self.folder)[KEPT:]:
                path.unlink(missing_ok=True)
