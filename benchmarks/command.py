"""What do the command lines share? One thread, one JSON file, a table for the README, and the whole report in words."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.results import FOLDER, environment, torchdeq_version, write

Content = dict[str, Any]


def parser(
    doc: str | None, name: str, *, cells: Sequence[str] = (), rounds: int | None = None
) -> argparse.ArgumentParser:
    """Return the options of a benchmark whose result is `name`; `cells`, `rounds`: where it can be asked for fewer."""
    made = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    made.add_argument("--json", type=Path, default=FOLDER / f"{name}.json", help="where the result is written")
    made.add_argument("--markdown", action="store_true", help="print the README's table and nothing else")
    if cells:
        made.add_argument("--cells", nargs="+", choices=cells, default=list(cells), help="these cells only")
    if rounds is not None:
        made.add_argument("--rounds", type=int, default=rounds, help="timings of each, at least 7 for a result")
    return made


def run(
    options: argparse.Namespace,
    measure: Callable[[], Content],
    table: Callable[[Content], str],
    report: Callable[[Content], Sequence[str]],
    *,
    peer: bool = True,
) -> None:
    """Measure on one thread, write the result, and print the README's table alone or the whole report.

    `peer`: whether torchdeq is compared with, so that its absence is told.
    """
    torch.set_num_threads(1)
    content = {"environment": environment(), **measure()}
    write(options.json, content)
    if options.markdown:
        print(table(content))
        return
    if peer and torchdeq_version() is None:
        print("torchdeq is not installed (pip install --no-deps torchdeq==0.1.0); this is the poise half alone.")
    print(*report(content), sep="\n\n")
