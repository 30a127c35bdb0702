"""How are solvers compared on time? Each at the loosest tolerance of its own that gives the accuracy asked for.

First by counting: the own tolerance is loosened or tightened until the answer just passes a test in float64, and the
budget is cut to the evaluations that took. Then exactly that call is timed, beside one evaluation of the cell.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.cells import parts
from benchmarks.live_bytes import LiveBytes
from benchmarks.timing import CHAIN, Call, alternate

# How finely own tolerances are tried: less than one evaluation apart on all cells but the hardest.
STEPS_A_DECADE = 20
LOOSEST, TIGHTEST = 1e3, 1 / 30  # times the accuracy asked for


@dataclass(frozen=True)
class Contestant:
    """One solver at one setting: `prepare(f, rtol, budget)` returns the call that is timed.

    The call returns its answer. `f` is the cell (or the product), `rtol` the solver's own relative tolerance.
    """

    library: str
    solver: str
    prepare: Callable[[Callable[..., Any], float, int], Call]
    default: bool = False
    kind: str = ""  # settings of one kind cost the same an evaluation: the one that makes the fewest is timed
    fixed: bool = False  # whether it tests nothing, so that its budget is what is tuned


@dataclass(frozen=True)
class Case:
    """What is asked for: an answer whose error, by float64, is within the tolerance (NaN is not)."""

    direction: str
    name: str
    f: Callable[..., Any]
    error: Callable[[Any], float]
    tolerance: float
    budget: int
    state_bytes: int
    one_evaluation: Call
    device: str = "cpu"
    timed: Callable[..., Any] | None = None  # the cell in the timed calls, where that is a costlier one of equal values


class Counted:
    """A cell that counts its evaluations and the rows in them."""

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f, self.evaluations, self.rows = f, 0, 0

    def __call__(self, z: Any, *context: Any) -> Any:
        self.evaluations += 1
        self.rows += parts(z)[0].shape[0]
        return self.f(z, *context)


@dataclass(frozen=True)
class Trial:
    """One solve: its own tolerance and budget, what it took, what it reached."""

    rtol: float
    budget: int
    evaluations: int
    rows: int
    products: int  # of the backward, where the answer is a gradient
    error: float


def attempt(contestant: Contestant, case: Case, rtol: float, budget: int) -> Trial:
    """Solve once, counting."""
    counted = Counted(case.f)
    error, answer = float("inf"), None
    with suppress(torch.linalg.LinAlgError):  # a singular system ends a solve of torchdeq's without an answer
        answer = contestant.prepare(counted, rtol, budget)()
        error = case.error(answer)
    evaluations = getattr(answer, "evaluations", counted.evaluations)  # a compiled solver counts for itself
    return Trial(rtol, budget, evaluations, counted.rows, getattr(answer, "products", 0), error)


def loosest(attempt_at: Callable[[float], Trial], tolerance: float) -> tuple[Trial, bool]:
    """Return the trial of the loosest own tolerance that passes and True, or the best trial and False.

    Tolerances lie on a grid from LOOSEST down to TIGHTEST times the one asked for. From the one asked for itself the
    grid is walked in strides that double until the test changes its answer, then bisected: an answer improves with its
    own tolerance.
    """
    trials: dict[int, Trial] = {}

    def passes(place: int) -> bool:
        if place not in trials:
            trials[place] = attempt_at(tolerance * 10 ** (-place / STEPS_A_DECADE))
        return trials[place].error <= tolerance

    first, last = (round(-STEPS_A_DECADE * math.log10(end)) for end in (LOOSEST, TIGHTEST))
    start = passes(0)
    inside, stride = 0, 4  # the last place found to answer as the start does
    while True:
        outside = max(inside - stride, first) if start else min(inside + stride, last)
        if outside == inside:  # the end of the grid answers as the start does
            best = min(trials.values(), key=lambda found: (math.isnan(found.error), found.error))
            return (trials[inside], True) if start else (best, False)
        if passes(outside) != start:
            break
        inside, stride = outside, 2 * stride
    passing, failing = (inside, outside) if start else (outside, inside)
    while passing - failing > 1:
        middle = (failing + passing) // 2
        passing, failing = (middle, failing) if passes(middle) else (passing, middle)
    return trials[passing], True


def fewest(attempt_with: Callable[[int], Trial], tolerance: float, most: int) -> tuple[Trial, bool]:
    """Return the trial of the smallest budget that passes and True, or the best trial and False.

    Budgets are doubled until one passes, then bisected: an answer improves with its budget.
    """
    trials: dict[int, Trial] = {}

    def passes(budget: int) -> bool:
        if budget not in trials:
            trials[budget] = attempt_with(budget)
        return trials[budget].error <= tolerance

    failing, passing = 0, 1
    while not passes(passing):
        if passing == most:
            return min(trials.values(), key=lambda found: (math.isnan(found.error), found.error)), False
        failing, passing = passing, min(2 * passing, most)
    while passing - failing > 1:
        middle = (failing + passing) // 2
        failing, passing = (failing, middle) if passes(middle) else (middle, passing)
    return trials[passing], True


def race(
    case: Case, contestants: Sequence[Contestant], rounds: int, finalists: int | None = None
) -> list[dict[str, Any]]:
    """Tune every contestant, time those that can be the fastest in turns, and return one entry each.

    `finalists`: time only so many of each library, those of the fewest rows (where the cell is all the cost).
    """
    found = []
    for contestant, outdone in shortlisted(contestants, case):
        tuning = (outdone, outdone.error <= case.tolerance) if outdone else tuned(contestant, case)
        found.append((contestant, outdone is None, *tuning))
    rows: dict[str, list[int]] = {}
    for contestant, listed, trial, reached in found:
        if listed and reached:
            rows.setdefault(contestant.library, []).append(trial.rows)
    most = {library: sorted(taken)[: finalists or None][-1] for library, taken in rows.items()}
    entries: list[dict[str, Any]] = []
    calls: dict[str, Call] = {}
    for contestant, listed, trial, reached in found:
        entry: dict[str, Any] = {
            "direction": case.direction,
            "cell": case.name,
            "tolerance": case.tolerance,
            "library": contestant.library,
            "solver": contestant.solver,
            "default": contestant.default,
            "tuned": listed,
            "reached": reached,
            "own_rtol": None if contestant.fixed else trial.rtol,
            "evaluations": trial.evaluations,
            "rows": trial.rows,
            "products": trial.products,
            "error": trial.error,
        }
        entries.append(entry)
        if listed and reached and trial.rows <= most[contestant.library]:
            key = f"{contestant.library} {contestant.solver}"
            calls[key] = contestant.prepare(case.timed or case.f, trial.rtol, trial.budget)
            entry |= _bytes(contestant, case, trial)
    timed = {"one evaluation": case.one_evaluation, **calls}
    seconds = alternate(timed, rounds, case.device, chained={"one evaluation": CHAIN})
    one = statistics.median(seconds.pop("one evaluation"))
    for entry in entries:
        times = seconds.get(f"{entry['library']} {entry['solver']}")
        if times:
            median = statistics.median(times)
            entry |= {"seconds": median, "fastest_seconds": min(times), "cell_seconds": one}
            entry["overhead"] = median / (entry["evaluations"] * one)
    return entries


def shortlisted(contestants: Sequence[Contestant], case: Case) -> Iterator[tuple[Contestant, Trial | None]]:
    """Yield every contestant with None, or with its one trial if another of its kind outdoes it.

    All of a kind are tried at the tolerance asked for; the one that stops after the fewest evaluations goes on.
    """
    trials = {c.solver: attempt(c, case, case.tolerance, case.budget) for c in contestants if c.kind}
    for contestant in contestants:
        kin = [other.solver for other in contestants if contestant.kind and other.kind == contestant.kind]
        best = min(kin, key=lambda name: (math.isinf(trials[name].error), trials[name].evaluations), default="")
        yield contestant, None if best in ("", contestant.solver) else trials[contestant.solver]


def tuned(contestant: Contestant, case: Case) -> tuple[Trial, bool]:
    """Return the cheapest trial that passes, its budget cut to what it took, and whether there is one."""
    if contestant.fixed:
        return fewest(lambda budget: attempt(contestant, case, 0.0, budget), case.tolerance, case.budget)
    found, reached = loosest(lambda rtol: attempt(contestant, case, rtol, case.budget), case.tolerance)
    if reached:
        cut = attempt(contestant, case, found.rtol, max(found.evaluations, found.products))
        if cut.error <= case.tolerance:
            found = cut
    return found, reached


def _bytes(contestant: Contestant, case: Case, trial: Trial) -> dict[str, int]:
    """Return what a solve keeps between evaluations and after it; of a training step, the most bytes alive in it."""
    live = LiveBytes(case.state_bytes, within=case.direction == "step")
    call = contestant.prepare(live.watched(case.f), trial.rtol, trial.budget)
    with live:
        answer = call()
    if live.within:
        return {"state_bytes": case.state_bytes, "peak_bytes": live.peak}
    after = live.history_alive()
    del answer
    return {
        "state_bytes": case.state_bytes,
        "history_bytes": live.history,
        "kept_bytes": live.kept,
        "history_bytes_after": after,
    }
