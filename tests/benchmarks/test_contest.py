"""Each solver at the loosest tolerance of its own that gives the accuracy asked for, and what it holds."""

import math
from dataclasses import replace

import pytest
import torch

from benchmarks.cells import Problem, dense256, mdeq
from benchmarks.contest import STEPS_A_DECADE, Case, Contestant, Trial, attempt, fewest, loosest, race, tuned
from benchmarks.counting import Adjoint
from benchmarks.live_bytes import LiveBytes
from benchmarks.solves import backward_case, backward_contestants, forward_case, forward_contestants
from benchmarks.timing import alternate

GRID = 10 ** (1 / STEPS_A_DECADE)


@pytest.fixture
def halving():
    """z = z / 2 + 1/2 beside a faster sample: iterate k, counted from 1, has the residual 1 / (2^k - 1)."""
    factor = torch.tensor([[0.5], [0.125]])
    return Problem("halving", lambda z, c: c * z + (1 - c), factor, torch.zeros(2, 1))


def trials(error_of):
    return lambda rtol: Trial(rtol, budget=9, evaluations=1, rows=1, products=0, error=error_of(rtol))


@pytest.mark.parametrize("factor", [0.01, 0.9, 1.0, 1.2, 7.0, 20.0])
def test_the_loosest_tolerance_is_found_to_a_step_of_the_grid(factor):
    found, reached = loosest(trials(lambda rtol: factor * rtol), 1e-6)
    assert reached and found.error <= 1e-6
    assert factor * found.rtol * GRID > 1e-6 * (1 - 1e-9)


def test_what_never_passes_is_returned_at_its_best_and_nothing_is_looser_than_the_grid():
    found, reached = loosest(trials(lambda rtol: 1e-5 + rtol if rtol > 3e-7 else float("nan")), 1e-6)
    assert not reached and found.error == pytest.approx(1.03e-5, rel=0.1)
    assert loosest(trials(lambda rtol: 0.0), 1e-6)[0].rtol == pytest.approx(1e-3)


@pytest.mark.parametrize("needed", [1, 2, 7, 8, 10])
def test_the_smallest_budget_that_passes_is_found(needed):
    def attempt_with(budget):
        return Trial(0.0, budget, budget, budget, 0, 1e-7 if budget >= needed else 1e-5 / budget)

    found, reached = fewest(attempt_with, 1e-6, 100)
    assert reached and found.budget == needed
    found, reached = fewest(attempt_with, 1e-8, 64)
    assert not reached and found.error == min(attempt_with(2**power).error for power in range(7))


def test_a_solve_is_tuned_to_its_true_residual(halving):
    case = forward_case(halving, 1e-3)
    picard = next(c for c in forward_contestants(halving) if (c.library, c.solver) == ("poise", "Picard()"))
    with torch.no_grad():
        found, reached = tuned(picard, case)
        tighter = attempt(picard, case, found.rtol / 2, 100)
    # The state returned is f of the iterate that was tested: its residual is that of the next one.
    assert reached and found.evaluations == found.budget == 9
    assert found.error == pytest.approx(1 / (2**10 - 1), rel=1e-4) and found.rows == 9 + 4
    assert tighter.evaluations == 10 and tighter.error < found.error


def test_of_settings_that_cost_the_same_the_one_with_the_fewest_evaluations_is_timed(halving):
    def repeated(times):
        def prepare(f, rtol, budget):
            def solve():
                z = halving.z0
                for _ in range(times):
                    z = f(z, halving.context)
                return z

            return solve

        return prepare

    several = [Contestant("peer", f"{times} times", repeated(times), kind="repeated") for times in (40, 30, 50)]
    short = Contestant("peer", "3 times", repeated(3))
    entries = race(forward_case(halving, 1e-6), [*several, short], rounds=1)
    assert [entry["solver"] for entry in entries if "seconds" in entry] == ["30 times"]
    assert [entry["reached"] for entry in entries] == [True, True, True, False]
    assert [entry["evaluations"] for entry in entries] == [40, 30, 50, 3]


@pytest.mark.parametrize("build", [dense256, mdeq], ids=lambda build: build.__name__)
def test_everyone_solves_the_same_problem_and_its_adjoint(build):
    problem = build().select(torch.tensor([1]))
    adjoint = Adjoint.of(problem)
    with torch.no_grad():
        for contestant in forward_contestants(problem):
            assert attempt(contestant, forward_case(problem, 1e-2), 1e-3, 300).error < 1e-2, contestant.solver
    for contestant in backward_contestants(adjoint):
        assert attempt(contestant, backward_case(problem, adjoint, 1e-2), 1e-3, 300).error < 1e-2, contestant.solver


def test_a_race_gives_time_over_that_of_its_evaluations_and_what_is_held(halving):
    with torch.no_grad():
        entries = race(forward_case(halving, 1e-3), forward_contestants(halving)[:2], rounds=1)
    default = entries[0]
    assert default["default"] and not entries[1]["default"]
    assert default["overhead"] == pytest.approx(default["seconds"] / (default["evaluations"] * default["cell_seconds"]))
    assert default["history_bytes_after"] == 0 < default["kept_bytes"]


def test_calls_alternate_and_the_order_turns_round():
    order = []

    def call(name):
        def run():
            order.append(name)
            sum(range(200_000))  # long enough that it is not repeated

        return run

    found = alternate({"a": call("a"), "b": call("b")}, rounds=2)
    assert order == ["a", "b", "a", "b", "b", "a"]
    assert all(len(times) == 2 and min(times) > 0 for times in found.values())
    order.clear()
    alternate({"a": call("a"), "b": call("b")}, rounds=1, chained={"b": 3})
    assert order == ["a", "b", "a", "b", "b", "b"]


def solver_with(states, released):
    """A solver that keeps a buffer of so many states between two evaluations, and afterwards unless it is released."""

    def prepare(f, rtol, budget):
        def solve():
            z = torch.zeros(2, 100)
            buffer = torch.zeros(states, 2, 100)
            f(z)
            image = f(z)
            return image if released else (image, buffer)

        return solve

    return prepare


@pytest.mark.parametrize("released", [True, False])
def test_history_is_what_is_alive_at_a_call_of_the_cell(released):
    live = LiveBytes(state_bytes=800)
    call = solver_with(7, released)(live.watched(lambda z: z + torch.ones(9, 2, 100).sum()), 0.0, 2)
    with live:
        answer = call()
    assert live.history == 7 * 800
    assert live.kept == 8 * 800  # and the iterate; what the cell makes for itself is not the solver's
    assert live.history_alive() == (0 if released else 7 * 800)
    del answer
    assert live.history_alive() == 0


def test_the_peak_follows_what_the_cell_makes():
    live = LiveBytes(state_bytes=800, within=True)
    with live:
        solver_with(7, True)(live.watched(lambda z: z + torch.ones(9, 2, 100).sum()), 0.0, 2)()
    assert live.peak >= (7 + 1 + 9) * 800


def test_an_answer_that_is_not_a_number_does_not_pass(halving):
    case = replace(forward_case(halving, 1e-3), error=lambda state: math.nan)
    assert isinstance(case, Case)
    with torch.no_grad():
        assert tuned(forward_contestants(halving)[0], case)[1] is False
