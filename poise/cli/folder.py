"""Which folder a run goes to. Nothing is written here: that waits until the data has been read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from poise.cli.errors import UsageError
from poise.configs.fields import to_dict
from poise.recipes import read_settings_file
from poise.tasks.process import rank
from poise.tasks.run_folder import RunFolder

RUNS = Path("runs")

# What a resumed run may change: how it is computed and looked at, not what it computes.
CHANGEABLE = ("trainer.", "eval_solver.", "data.eval_batch_size", "sample_tokens")
FIXED = ("trainer.accumulate_grad_batches", "trainer.gradient_clip_val")


def choose_folder(task: str, config: Any, out: Path | None, *, resume: bool, overwrite: bool) -> RunFolder:
    """Return the folder of a run: `out`, or runs/TASK-RECIPE-N with the next free N (when resuming, the last one)."""
    if out is None:
        name = f"{task}-{config.recipe or config.model.kind}"
        last = max(_taken(name), default=0)
        return RunFolder(RUNS / f"{name}-{last if resume and last else last + 1}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder.")
    # Other processes of the launch may come here when the first has begun to write.
    if not (resume or overwrite) and rank() == 0 and out.is_dir() and any(out.iterdir()):
        raise UsageError(f"the folder {out} is not empty; pass --resume to go on, --overwrite, or another --out.")
    return RunFolder(out)


def _taken(name: str) -> list[int]:
    numbers = (path.name.removeprefix(f"{name}-") for path in RUNS.glob(f"{name}-*"))
    return [int(number) for number in numbers if number.isdigit()]


def saved_settings(folder: RunFolder, task: str) -> dict[str, Any] | None:
    """Return the settings of the run in a folder, or None where it was stopped before it wrote them."""
    return read_settings_file(folder.config, task) if folder.config.exists() else None


def refuse_changes(folder: RunFolder, saved: Any, config: Any) -> None:
    """Raise a UsageError if a resumed run would compute something else than it did so far."""
    before, after = _flat(to_dict(saved)), _flat(to_dict(config))
    for name, value in after.items():
        if before[name] != value and (name in FIXED or not name.startswith(CHANGEABLE)):
            raise UsageError(
                f"the run in {folder.path} has {name} {before[name]}, not {value}; leave it out, or start a new run."
            )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
