"""Testing at every so many evaluations: cheaper, and everything that hangs on a test waits for it."""

import pytest
import torch

import poise
from poise import Anderson, Broyden, NewtonKrylov, Picard, Status
from tests.contracts.problems import dense


@pytest.mark.parametrize("kind", [Picard, Anderson, Broyden])
@pytest.mark.parametrize("every", [2, 3, 5])
def test_samples_finish_at_the_next_test(kind, every):
    case = dense(batch=8, n=24, gain=0.8)
    often = poise.fixed_point(case.f, case.z0, case.x, solver=kind(rtol=1e-8, max_steps=200))
    seldom = poise.fixed_point(case.f, case.z0, case.x, solver=kind(rtol=1e-8, max_steps=200, check_every=every))
    assert seldom.ok and (seldom.residual <= 1e-8).all()
    # Never sooner than when tested always; a residual that is not monotone may pass a test that the other skipped.
    assert (seldom.steps >= often.steps).all() and (seldom.steps % every == 0).all()
    if kind is Picard:
        assert torch.equal(seldom.steps, (often.steps + every - 1) // every * every)
    assert torch.allclose(seldom.state, case.solution(), atol=1e-6)


def test_rows_and_the_trace_say_what_was_tested():
    case = dense(batch=8, n=24, gain=0.8)
    rows = 0

    def f(z, x):
        nonlocal rows
        rows += len(z)
        return case.f(z, x)

    solution = poise.fixed_point(
        f, case.z0, case.x, solver=Picard(rtol=1e-8, check_every=4, max_steps=200), check=False
    )
    assert solution.rows <= rows <= solution.rows + 8  # and the evaluation that the gradient attaches
    tested = torch.arange(1, solution.evaluations + 1)
    tested = (tested == 1) | (tested % 4 == 0)
    assert solution.trace.shape == (solution.evaluations, 8)
    assert torch.equal(solution.trace.isfinite().any(dim=1), tested)


def test_the_last_evaluation_is_tested():
    case = dense(batch=4, n=24, gain=0.9)
    solution = poise.fixed_point(
        case.f, case.z0, case.x, solver=Picard(rtol=1e-12, max_steps=10, check_every=4), on_failure="ignore"
    )
    assert (solution.status == Status.BUDGET).all() and (solution.steps == 10).all()
    again = case.f(solution.state.detach(), case.x) - solution.state
    assert (again.norm(dim=1) < solution.residual * solution.state.norm(dim=1)).all()  # one evaluation further


def test_a_failure_between_tests_is_found_at_the_next_and_spares_the_neighbours():
    case = dense(batch=3, n=8, gain=0.8)
    calls = 0

    def f(z, x):
        nonlocal calls
        calls += 1
        image = case.f(z, x)
        return torch.where(x[:, :1].eq(case.x[1, 0]) & (calls == 6), torch.nan, image)

    with torch.no_grad():
        solution = poise.fixed_point(
            f, case.z0, case.x, solver=Picard(rtol=1e-8, max_steps=200, check_every=4), on_failure="ignore", check=False
        )
    assert solution.status.tolist() == [Status.CONVERGED, Status.NONFINITE, Status.CONVERGED]
    assert solution.steps[1] == 8 and solution.state.isfinite().all()


@pytest.mark.parametrize("kind", [Picard, Anderson])
def test_what_is_observed_is_every_evaluation(kind):
    case, seen = dense(batch=4, n=8, gain=0.8), []
    solution = poise.fixed_point(
        case.f, case.z0, case.x, solver=kind(rtol=1e-8, check_every=3, max_steps=200), callback=seen.append, check=False
    )
    assert [step.number for step in seen] == list(range(1, solution.evaluations + 1))
    assert all(step.residual.isfinite().all() for step in seen)


def test_a_rule_with_evaluations_of_its_own_is_tested_always():
    """Its budget is only known after each step."""
    case = dense(batch=4, n=8, gain=0.8)
    plain, every = (
        poise.fixed_point(case.f, case.z0, case.x, solver=NewtonKrylov(rtol=1e-8, check_every=every))
        for every in (1, 7)
    )
    assert torch.equal(plain.steps, every.steps)
