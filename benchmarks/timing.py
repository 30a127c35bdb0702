"""How are times compared? In one process, alternating, so that what slows the machine slows all that is compared."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

Call = Callable[[], Any]

# A call that takes less is repeated within one timing, so that the clock's own steps do not show.
SHORTEST = 2e-3
# How many evaluations in a row are timed as one.
CHAIN = 20


def alternate(
    calls: Mapping[str, Call], rounds: int, device: str = "cpu", chained: Mapping[str, int] | None = None
) -> dict[str, list[float]]:
    """Return the seconds of every call in every round, the order turned round from one round to the next.

    `chained`: calls that are made so many times in a row for one timing, such as the evaluation that solves are
    compared with: it shall find its memory as warm as the evaluations of a solve do.
    On the CPU it is processor time, which other processes disturb least; on a device, wall time with the device waited
    for. Each call runs once before. The garbage collector waits between timings.
    """
    repeats = {}
    for name, call in calls.items():
        enough = max(1, min(200, int(SHORTEST / max(_seconds(call, 1, device), 1e-9))))
        repeats[name] = max(enough, (chained or {}).get(name, 1))
    found: dict[str, list[float]] = {name: [] for name in calls}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            gc.collect()
            for name in reversed(list(calls)) if number % 2 else calls:
                found[name].append(_seconds(calls[name], repeats[name], device))
    finally:
        if collecting:
            gc.enable()
    return found


def _seconds(call: Call, repeats: int, device: str) -> float:
    clock = time.process_time if device == "cpu" else time.perf_counter
    _wait(device)
    start = clock()
    for _ in range(repeats):
        call()
    _wait(device)
    return (clock() - start) / repeats


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)
