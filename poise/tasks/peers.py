"""Runs that a run is compared with: what they ended with is kept in its folder, for the summary and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from poise.report.formatting import Unit, format_value
from poise.tasks.errors import RunError
from poise.tasks.run_folder import RunFolder

COSTS: Mapping[str, tuple[str, Unit]] = {
    "parameters": ("parameters", "number"),
    "steps": ("steps", "number"),
    "train_cpu_seconds": ("CPU time of training", "seconds"),
    "activation_bytes": ("bytes held for backward", "bytes"),
    "mean_forward_evaluations": ("evaluations a solve", "number"),
}
"""What is compared beside quality: what it is called, and its unit."""


def ended(task: str, runs: Sequence[Path]) -> list[dict[str, Any]]:
    """Return what finished runs of a task ended with; raise a RunError for other tasks and runs not finished."""
    found = []
    for path in runs:
        peer = RunFolder(path)
        other, settings = peer.read_config()
        summary = peer.read_json(peer.summary)
        if other != task:
            raise RunError(f"{path} is a run of {other}, which has no measure in common with one of {task}.")
        if not summary:
            raise RunError(f"the run in {path} is not finished, so there is nothing to compare with; finish it first.")
        name = path.resolve().name
        found.append(
            {"name": name, "settings": settings, "summary": summary, "analysis": peer.read_json(peer.analysis)}
        )
    return found


def keep(folder: RunFolder, peers: Sequence[Mapping[str, Any]]) -> None:
    """Keep what runs ended with in the folder of a run that is compared with them, in place of those kept before."""
    folder.write_json(folder.peers, {"peers": peers})


def compared(
    summary: Mapping[str, Any], peers: Sequence[Mapping[str, Any]]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the header and the rows of a table: quality and costs of a run and of its peers."""
    columns = [summary, *(peer["summary"] for peer in peers)]
    measures = [name for name, value in summary.items() if name.startswith("val_") and isinstance(value, int | float)]
    rows = [
        (name.removeprefix("val_").replace("_", " "), *(format_value(one.get(name), "number") for one in columns))
        for name in measures
    ]
    rows += [  # a network without an equilibrium has 0 evaluations, which are none
        (label, *(format_value(one.get(name) or None, unit) for one in columns))
        for name, (label, unit) in COSTS.items()
    ]
    return ("", "this run", *(str(peer["name"]) for peer in peers)), rows


def table(folder: RunFolder) -> str:
    """Return how a finished run compares with those kept beside it, for a terminal; empty where there are none."""
    summary, peers = folder.read_json(folder.summary), folder.read_json(folder.peers).get("peers", [])
    if not (summary and peers):
        return ""
    header, rows = compared(summary, peers)
    widths = [max(len(row[place]) for row in (header, *rows)) + 2 for place in range(len(header))]
    return "\n".join(
        "  " + f"{row[0]:{widths[0]}}" + "".join(f"{cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in (header, *rows)
    )
