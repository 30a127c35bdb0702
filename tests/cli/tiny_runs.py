"""Small runs, here or in processes that are killed, forked from one that has imported torch already."""

import multiprocessing
import os
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path


def flags(text: str) -> list[str]:
    """Return words, as a shell would pass them."""
    return text.split()


# A network and windows small enough for a step of a few milliseconds.
TINY = flags(
    "--model.d_model 16 --model.n_heads 2 --model.n_layers 1 --data.sequence_length 16 --data.batch_size 4 "
    "--eval_solver.rtol 1e-2 --sample_tokens 8"
)


def run_in_child(
    arguments: list[str],
    log: Path,
    *,
    stop: str = "",
    signum: int = signal.SIGKILL,
    environment: dict[str, str] | None = None,
) -> int:
    """Run `poise ARGUMENTS` in a process, its output in a file, and return its exit code.

    `stop`: where the process sends itself a signal, as `step 5` (half of the weights moved) or `write NAME` (a file is
    written but not yet in its place).
    """
    process = start(arguments, log, stop=stop, signum=signum, environment=environment)
    process.join(120)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode


def start(
    arguments: list[str],
    log: Path,
    *,
    stop: str = "",
    signum: int = signal.SIGKILL,
    environment: dict[str, str] | None = None,
) -> multiprocessing.process.BaseProcess:
    """Start such a process and return it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["poise.tasks.training", "poise.tasks.language", "jsonargparse"])
    process = context.Process(target=_run, args=(arguments, log, stop, signum, environment or {}))
    process.start()
    return process


def _run(arguments: list[str], log: Path, stop: str, signum: int, environment: dict[str, str]) -> None:
    import torch

    from poise.cli.main import main

    os.environ.update(environment)
    torch.set_num_threads(1)
    what, _, where = stop.partition(" ")
    if what == "step":
        _stop_in_step(int(where), signum)
    if what == "write":
        _stop_in_write(where, signum)
    with log.open("w", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        code = main(arguments)
    sys.exit(code)


def _stop_in_step(number: int, signum: int) -> None:
    from poise.tasks.optimization import Muon

    move = Muon._adamw_step
    first = []

    def moved(self, group, weight):
        move(self, group, weight)
        first.append(weight)
        if weight is first[0] and self.state[weight]["step"] == number:
            os.kill(os.getpid(), signum)

    Muon._adamw_step = moved


def _stop_in_write(name: str, signum: int) -> None:
    replace = os.replace

    def replaced(source, target):
        if Path(target).name == name:
            os.kill(os.getpid(), signum)
        replace(source, target)

    os.replace = replaced
