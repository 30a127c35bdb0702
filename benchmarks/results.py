"""Where do results go, and how are they shown? JSON in `results/`, each file with the environment it was measured in.

Imported by the other scripts; `python -m benchmarks.tables` prints what is there.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Collection, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parent / "results"


def environment() -> dict[str, Any]:
    """Return what the numbers depend on besides the code."""
    return {
        "cpu": _cpu_model(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchdeq": torchdeq_version(),
    }


def torchdeq_version() -> str | None:
    """Return the version of torchdeq, or None where it is not installed."""
    try:
        return metadata.version("torchdeq")
    except metadata.PackageNotFoundError:
        return None


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a result whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps({"environment": environment(), **content}, indent=1) + "\n", encoding="utf-8")
    os.replace(new, path)


def read(name: str, path: Path | None = None) -> dict[str, Any] | None:
    """Return the result `name`, or None where it has not been measured; `path`: where it is, if not in `FOLDER`."""
    path = path or FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[int] = ()) -> str:
    """Return a Markdown table, padded so that it reads as text; the columns `numbers` stand to the right."""
    body = [list(row) for row in rows]
    widths = [max(3, *(len(row[column]) for row in [list(header), *body])) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = ["-" * (width - 1) + (":" if column in numbers else "-") for column, width in enumerate(widths)]
    return "\n".join([line(header), line(rule), *(line(row) for row in body)])


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
