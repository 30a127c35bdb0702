"""metrics.csv as a Lightning logger that a resumed run continues; Lightning's own begins anew and deletes the old."""

from __future__ import annotations

import csv
import io
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from poise.tasks.run_folder import RunFolder, write_atomically


class MetricsFile(Logger):
    """One row for each call, the first column the step; a measure that is new makes a new column."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__()
        self.folder = folder
        self.columns: list[str] = []

    @property
    def name(self) -> str:
        """The file's name."""
        return "metrics"

    @property
    def version(self) -> str:
        """There is one."""
        return ""

    @rank_zero_only
    def begin(self, resume_step: int | None) -> None:
        """Continue the rows up to a step, or begin anew (None)."""
        # Rows after the checkpoint will be written again, with the same numbers.
        rows = [row for row in self.folder.read_metrics() if resume_step is not None and row["step"] <= resume_step]
        if rows:
            self._rewrite(rows)
        else:
            self.folder.metrics.unlink(missing_ok=True)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Settings lie in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row."""
        row = {"step": float(step or 0), **{name: float(value) for name, value in metrics.items()}}
        if set(row) <= set(self.columns):
            with self.folder.metrics.open("a", newline="", encoding="utf-8") as file:
                file.write(_lines(self.columns, [row]))
        else:
            self._rewrite([*self.folder.read_metrics(), row])

    def _rewrite(self, rows: list[dict[str, float]]) -> None:
        self.columns = list(dict.fromkeys([*self.columns, *(name for row in rows for name in row)]))
        header = ",".join(self.columns) + "\n"
        write_atomically(self.folder.metrics, (header + _lines(self.columns, rows)).encode())


def _lines(columns: list[str], rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    for row in rows:
        writer.writerow({name: f"{value:.8g}" for name, value in row.items()})
    return text.getvalue()
