"""What does a solver add to the evaluations it makes? Time of a solve over that of its evaluations alone.

Every solver makes EVALUATIONS evaluations under a tolerance that nothing meets by then: its test is paid, and no sample
leaves the batch. Beside it stands the floor that memory sets, see `floor_bytes`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import torch

import poise
from benchmarks.cells import Problem, attention, conv, dense256, parts
from benchmarks.contest import Counted
from benchmarks.peers import Torchdeq
from benchmarks.results import torchdeq_version
from benchmarks.timing import Call, alternate

CELLS = (attention, conv, dense256)
EVALUATIONS = 20
UNMET = 1e-6

SOLVERS: dict[str, poise.Solver] = {
    "Picard()": poise.Picard(),
    "Picard(rtol=None)": poise.Picard(rtol=None),
    "Picard(check_every=6)": poise.Picard(check_every=6),
    "Anderson()": poise.Anderson(),
    "Anderson(period=1)": poise.Anderson(period=1),
    "Anderson(form='type2', history=6)": poise.Anderson(form="type2", history=6),
    "Broyden()": poise.Broyden(),
}
PEERS = {
    "fixed_point_iter": Torchdeq("fixed_point_iter"),
    "anderson(m=6, lam=0)": Torchdeq("anderson", {"m": 6, "lam": 0.0}),
    "broyden": Torchdeq("broyden"),
}


def floor_bytes(solver: poise.Solver, evaluations: int, state_bytes: int) -> int:
    """Return the bytes that a solve must move through memory besides its evaluations, every pass as few as can be.

    A test reads z and f(z). Every step writes the new pair. One that mixes with j stored pairs (dx, dg) writes the next
    z, reads the pairs it takes inner products with, and all of them again to combine them, since the weights are known
    only in between: type II reads dg and then both, 3 j states; type I and Broyden read both twice, 4 j.
    """
    tests = len({1, evaluations, *range(solver.check_every, evaluations, solver.check_every)})
    states = 2 * tests if solver.rtol is not None else 0
    if isinstance(solver, poise.Anderson | poise.Broyden):
        passes = 3 if isinstance(solver, poise.Anderson) and solver.form == "type2" else 4
        period = min(solver.period, solver.history) if isinstance(solver, poise.Anderson) else 1
        for step in range(1, evaluations - 1):
            mixes = step % period == 0
            states += 2 + (1 + passes * min(step, solver.history) if mixes else 0)
    return states * state_bytes


def copy_bandwidth(nbytes: int, device: str = "cpu") -> float:
    """Return the bytes a second that a copy of a buffer of this size moves, read and written."""
    source = torch.zeros(max(nbytes // 4, 1), device=device)
    target = torch.empty_like(source)
    seconds = alternate({"copy": lambda: target.copy_(source)}, 7, device)["copy"]
    return 2 * source.nbytes / statistics.median(seconds)


@torch.no_grad()
def measure(names: Collection[str], rounds: int, device: str = "cpu") -> list[dict[str, Any]]:
    """Return one entry a cell and solver."""
    return [
        entry for build in CELLS if build.__name__ in names for entry in measured(build().on(device), rounds, device)
    ]


@torch.no_grad()
def measured(
    problem: Problem,
    rounds: int,
    device: str = "cpu",
    solvers: Mapping[str, poise.Solver] = SOLVERS,
    peers: Mapping[str, Torchdeq] = PEERS,
) -> list[dict[str, Any]]:
    """Return one entry a solver; torchdeq's iteration without a test is beside them where a state is one tensor."""
    makers = {("poise", name): _ours(problem, solver) for name, solver in solvers.items()}
    if torchdeq_version() is not None:
        makers |= {("torchdeq", name): _theirs(problem, peer) for name, peer in peers.items()}
        if len(parts(problem.z0)) == 1:
            makers["torchdeq", "simple_fixed_point_iter"] = _simple(problem)
    for (library, name), make in makers.items():
        counted = Counted(problem.f)
        make(counted)()
        assert (counted.evaluations, counted.rows) == (EVALUATIONS, EVALUATIONS * problem.batch), (library, name)
    calls = {f"{library} {name}": make(problem.f) for (library, name), make in makers.items()}
    timed = {"cell": lambda: problem.f(problem.z0, problem.context), **calls}
    seconds = alternate(timed, rounds, device, chained={"cell": EVALUATIONS})
    cell = statistics.median(seconds["cell"])
    entries = []
    for library, name in makers:
        spent = statistics.median(seconds[f"{library} {name}"])
        entries.append(
            {
                "cell": problem.name,
                "library": library,
                "solver": name,
                "evaluations": EVALUATIONS,
                "seconds": spent,
                "cell_seconds": cell,
                "overhead": spent / (EVALUATIONS * cell),
                **(_floor(problem, solvers[name], cell, device) if library == "poise" else {}),
            }
        )
    return entries


def _floor(problem: Problem, solver: poise.Solver, cell: float, device: str) -> dict[str, float]:
    moved = floor_bytes(solver, EVALUATIONS, problem.state_bytes)
    pairs = min(getattr(solver, "history", 1), EVALUATIONS - 1)
    bandwidth = copy_bandwidth(2 * pairs * problem.state_bytes, device)
    return {
        "floor_bytes": moved,
        "copy_bandwidth": bandwidth,
        "floor": 1 + moved / bandwidth / (EVALUATIONS * cell),
    }


def _ours(problem: Problem, solver: poise.Solver) -> Callable[[Any], Call]:
    rtol = None if solver.rtol is None else UNMET
    chosen = replace(solver, rtol=rtol, max_steps=EVALUATIONS)
    return lambda f: (
        lambda: poise.fixed_point(f, problem.z0, problem.context, solver=chosen, on_failure="ignore", check=False)
    )


def _theirs(problem: Problem, peer: Torchdeq) -> Callable[[Any], Call]:
    budget = EVALUATIONS - 1 if peer.key == "broyden" else EVALUATIONS  # its start is an evaluation of its own
    return lambda f: lambda: peer(lambda z: f(z, problem.context), problem.z0, budget, UNMET)


def _simple(problem: Problem) -> Callable[[Any], Call]:
    """Return torchdeq's iteration without a test, whose own final measure costs nothing here."""
    from torchdeq.solver import get_solver

    solver = get_solver("simple_fixed_point_iter")
    return lambda f: lambda: solver(lambda z, tau: f(z, problem.context), problem.z0, max_iter=EVALUATIONS)
