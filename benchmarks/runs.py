"""Runs of the command line as benchmarks: trained once, gone on with where they were stopped, and evaluated."""

from __future__ import annotations

from collections.abc import Sequence

from poise.cli.main import main as poise
from poise.tasks.run_folder import RunFolder


def trained(task: str, recipe: str, folder: RunFolder, *flags: str) -> RunFolder:
    """Train a recipe on one thread in a folder, unless it is done, and return the folder."""
    if not folder.summary.is_file():
        out = str(folder.path)
        carry_out(["train", task, "--recipe", recipe, "--threads", "1", "--out", out, "--resume", *flags])
    return folder


def carry_out(arguments: Sequence[str]) -> None:
    """Carry out a command of poise, and stop where it fails."""
    if code := poise(list(arguments)):
        raise SystemExit(code)
