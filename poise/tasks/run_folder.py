"""The folder of a run: what lies where, and files that are either written whole or not at all. Imports no torch."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poise.tasks.errors import RunError


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run.

    `config`: complete settings, replayable by `poise train TASK --config`. `metrics`: a row every few steps.
    `checkpoints`: the last two, to resume from. `summary`, `evaluation`, `analysis`: results, of which `report` is
    made, beside what `peers` ended with. `weights`, `tokenizer`, `samples`: what inference needs beside the settings.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The settings."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """Measures during training."""
        return self.path / "metrics.csv"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def summary(self) -> Path:
        """The results of training."""
        return self.path / "summary.json"

    @property
    def evaluation(self) -> Path:
        """The results of `poise evaluate`."""
        return self.path / "evaluation.json"

    @property
    def analysis(self) -> Path:
        """What the report shows beside measures and summary."""
        return self.path / "analysis.json"

    @property
    def peers(self) -> Path:
        """What runs that it is compared with ended with."""
        return self.path / "peers.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"

    @property
    def weights(self) -> Path:
        """The trained weights."""
        return self.path / "model.safetensors"

    @property
    def tokenizer(self) -> Path:
        """The folder of the tokenizer."""
        return self.path / "tokenizer"

    @property
    def samples(self) -> Path:
        """What was known of the samples when the network was built."""
        return self.path / "samples.json"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's files, where they were asked for."""
        return self.path / "tensorboard"

    def clear(self) -> None:
        """Remove what a run writes, and nothing else that may lie in the folder."""
        for path in (self.checkpoints, self.tokenizer, self.tensorboard):
            shutil.rmtree(path, ignore_errors=True)
        for path in (
            self.config,
            self.metrics,
            self.summary,
            self.evaluation,
            self.analysis,
            self.peers,
            self.report,
            self.weights,
            self.samples,
        ):
            path.unlink(missing_ok=True)

    def write_config(self, task: str, settings: Mapping[str, Any]) -> None:
        """Write the settings with the task's name."""
        import yaml

        text = yaml.safe_dump({"task": task, **settings}, sort_keys=False)
        write_atomically(self.config, f"# poise train {task} --config {self.config.name}\n{text}".encode())

    def read_config(self) -> tuple[str, dict[str, Any]]:
        """Return the task's name and the settings; raise a RunError where there is no run."""
        import yaml

        if not self.config.is_file():
            what = "is no folder" if not self.path.is_dir() else "holds no config.yaml"
            raise RunError(f"there is no run in {self.path}: it {what}; pass the folder of a run.")
        try:
            values = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            raise RunError(f"{self.config} cannot be read; restore it, or train again.") from None
        if not isinstance(values, dict) or not isinstance(values.get("task"), str):
            raise RunError(f"{self.config} names no task; restore it, or train again.")
        return values.pop("task"), values

    def write_json(self, path: Path, values: Mapping[str, Any]) -> None:
        """Write results; JSON has no NaN, so it becomes null."""
        write_atomically(path, (json.dumps(_without_nan(values), indent=2, allow_nan=False) + "\n").encode())

    def read_json(self, path: Path) -> dict[str, Any]:
        """Return results, or an empty table where there are none (yet)."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}

    def read_metrics(self) -> list[dict[str, float]]:
        """Return the rows of metrics.csv, each with the measures that it has; a row cut short by a kill is left out."""
        try:
            with self.metrics.open(newline="", encoding="utf-8") as file:
                header, *rows = list(csv.reader(file)) or [[]]
        except OSError:
            return []
        found = []
        for row in rows:
            if len(row) == len(header):
                with suppress(ValueError):
                    found.append({name: float(text) for name, text in zip(header, row, strict=True) if text})
        return found


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a name to write to; the file takes its place when all is written, or never: after a kill, on a full disk."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(
            f"cannot write {path} ({reason}); what was saved before is intact, so make room and --resume."
        ) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with atomic_path(path) as draft:
        draft.write_bytes(content)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    if isinstance(value, float) and value - value != 0:  # NaN and infinities
        return None
    return value
