"""Solves that go wrong in torchdeq 0.1.0, mostly without a word; in each pair poise comes first."""

import warnings

import pytest
import torch

import poise
from benchmarks.cells import dense256, hard
from benchmarks.live_bytes import LiveBytes
from poise import Anderson, Broyden, ConvergenceWarning, Picard, Status
from tests.contracts.problems import dense, linear

KEYS = ["fixed_point_iter", "anderson", "broyden"]
SOLVERS = [Picard(max_steps=500), Anderson(), Broyden()]
by_name = {"ids": lambda value: repr(value)[:40]}


# A slow neighbour.


def pair():
    """A sample that contracts by 0.3 beside one that contracts by 0.97."""
    return linear(torch.tensor([0.3, 0.97]), n=64)


@pytest.mark.parametrize(
    "solver", [Picard(rtol=1e-3, max_steps=500), Anderson(rtol=1e-3), Broyden(rtol=1e-3)], **by_name
)
def test_a_slow_neighbour_costs_a_fast_sample_nothing(solver):
    case = pair()
    both = poise.fixed_point(case.f, case.z0, case.x, solver=solver)
    alone = poise.fixed_point(case.f, case.z0[:1], case.x[:1], solver=solver)
    assert both.steps[0] == alone.steps[0] and both.steps[1] > 3 * both.steps[0]
    assert torch.allclose(both.state[0], alone.state[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("key", KEYS)
def test_torchdeq_makes_a_fast_sample_pay_and_moves_its_answer(torchdeq, key):
    case = pair()
    options = {"tol": 1e-3, "stop_mode": "rel", "max_iter": 500, "lam": 1e-8}
    both, _, together = torchdeq.solve(key, lambda z: case.f(z, case.x), case.z0, **options)
    first, _, alone = torchdeq.solve(key, lambda z: case.f(z, case.x[:1]), case.z0[:1], **options)
    assert alone < 10 and together > 4 * alone
    assert (both[0] - first[0]).norm() > 1e-5 * first.norm()


# The scale of the problem.

SCALES = [2.0**-10, 2.0**-7, 1.0, 2.0**7]  # powers of two, so that rounding is the same at every scale


def evaluations_at_scales(solve):
    case = linear(torch.tensor([0.9, 0.8]), n=64)
    matrix, x = case.f, case.x.float()
    return [solve(lambda z, x: matrix(z.double(), x.double()).float(), scaled(x, s)) for s in SCALES]


def scaled(x, scale):
    return torch.cat([scale * x[:, :-1], x[:, -1:]], dim=1)


@pytest.mark.parametrize("solver", [Picard(max_steps=500), Anderson(), Anderson(form="type2"), Broyden()], **by_name)
def test_evaluations_do_not_depend_on_the_scale(solver):
    counts = evaluations_at_scales(
        lambda f, x: poise.fixed_point(f, torch.zeros(2, 64), x, solver=solver, check=False).evaluations
    )
    assert len(set(counts)) == 1


def test_torchdeqs_ridge_is_absolute(torchdeq):
    def counts(**options):
        return evaluations_at_scales(
            lambda f, x: torchdeq.solve(
                "anderson", lambda z: f(z, x), torch.zeros(2, 64), tol=1e-4, stop_mode="rel", max_iter=200, **options
            )[2]
        )

    default, without = counts(), counts(lam=0.0)
    assert default[0] > 2 * default[-1]  # the smaller the problem, the more evaluations
    assert len(set(without)) == 1


# A small state.


def test_a_small_state_is_not_accepted_half_way():
    solution = poise.fixed_point(lambda z, x: 0.5 * z + x, torch.zeros(1, 4), torch.full((1, 4), 1e-4))
    assert torch.allclose(solution.state, torch.full((1, 4), 2e-4), rtol=1e-3)
    absolute = poise.fixed_point(
        lambda z, x: 0.5 * z + x, torch.zeros(1, 4), torch.full((1, 4), 1e-4), solver=Picard(rtol=0.0, atol=1e-3)
    )
    assert absolute.steps[0] == 1  # where it is asked for


def test_torchdeqs_default_accepts_half_the_answer(torchdeq):
    layer = torchdeq.get_deq()
    (state,), _ = layer(lambda z: 0.5 * z + 1e-4, torch.zeros(1, 4))
    assert torch.allclose(
        state, torch.full((1, 4), 1.5e-4)
    )  # the iterate 1e-4 and one recorded evaluation; exact: 2e-4


# One NaN.


def poisoned():
    """0.5 z + 1, but the second of three samples is NaN in the third evaluation, once."""
    made = 0

    def f(z):
        nonlocal made
        made += 1
        image = 0.5 * z + 1
        if made == 3:
            image[1] = float("nan")
        return image

    return f


@pytest.mark.parametrize("solver", SOLVERS, **by_name)
def test_one_nan_ends_its_sample_alone_with_the_last_finite_state(solver):
    with pytest.warns(ConvergenceWarning, match="NONFINITE for 1 of 3"):
        solution = poise.fixed_point(poisoned(), torch.zeros(3, 4), solver=solver, check=False)
    assert solution.status.tolist() == [Status.CONVERGED, Status.NONFINITE, Status.CONVERGED]
    assert solution.state.isfinite().all() and solution.evaluations < 30
    assert torch.allclose(solution.state[[0, 2]], torch.full((2, 4), 2.0), rtol=1e-3)


@pytest.mark.parametrize("key", KEYS)
def test_torchdeqs_sample_ends_nan_and_its_batch_never_stops(torchdeq, key):
    state, _, made = torchdeq.solve(key, poisoned(), torch.zeros(3, 4), tol=1e-3, stop_mode="rel", max_iter=60)
    assert state[1].isnan().all()  # though finite iterates existed
    assert made >= 60


def test_every_sample_nan_is_no_crash():
    """locuslab/deq: an unbound variable."""
    with pytest.warns(ConvergenceWarning, match="NONFINITE for 2 of 2"):
        solution = poise.fixed_point(lambda z, x: z + x, torch.zeros(2, 4), torch.full((2, 4), float("nan")))
    assert not solution.ok


# Divergence.


def test_divergence_is_told():
    with pytest.warns(ConvergenceWarning, match="DIVERGED for 2 of 2"):
        solution = poise.fixed_point(
            lambda z, x: 4 * z + x, torch.zeros(2, 4), torch.ones(2, 4), solver=Picard(max_steps=200), check=False
        )
    assert not solution.ok and solution.state.isfinite().all() and solution.residual.isfinite().all()


def test_torchdeqs_divergence_is_silent(torchdeq):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, record, _ = torchdeq.solve(
            "fixed_point_iter", lambda z: 1 - 3 * z, torch.ones(2, 8), tol=1e-3, stop_mode="rel", max_iter=25
        )
        _, overflowed, _ = torchdeq.solve(
            "fixed_point_iter", lambda z: 4 * z + 1, torch.zeros(2, 4), tol=1e-3, stop_mode="rel", max_iter=200
        )
    assert (record["rel_lowest"] > 0.1).all()
    assert not any("converged" in name or "status" in name for name in record)
    assert overflowed["rel_lowest"].isnan().all()


# Short budgets and exact starts.


@pytest.mark.parametrize("budget", [1, 2, 3])
@pytest.mark.parametrize("solver", [Picard, Anderson, Broyden])
def test_a_short_budget_is_used(solver, budget):
    case = dense()
    solution = poise.fixed_point(case.f, case.z0, case.x, solver=solver(max_steps=budget), on_failure="ignore")
    start = (case.f(case.z0, case.x) - case.z0).norm()
    image = case.f(solution.state, case.x)
    assert solution.evaluations == budget and (image - solution.state).norm() < start


@pytest.mark.parametrize("solver", SOLVERS, **by_name)
def test_an_exact_start_costs_one_evaluation(solver):
    case = dense()
    assert poise.fixed_point(case.f, case.solution(), case.x, solver=solver, check=False).evaluations == 1


@pytest.mark.parametrize("budget", [1, 2])
def test_torchdeqs_anderson_returns_the_start_untouched(torchdeq, budget):
    case = dense()
    state, record, made = torchdeq.solve("anderson", lambda z: case.f(z, case.x), case.z0, max_iter=budget)
    assert made == 2 and torch.equal(state, case.z0) and (record["rel_lowest"] == 1e8).all()


def test_torchdeqs_anderson_does_not_test_its_first_two_evaluations(torchdeq):
    case = dense()
    assert torchdeq.solve("anderson", lambda z: case.f(z, case.x), case.solution(), max_iter=20, lam=1e-8)[2] == 3


# A bounded Broyden history.


@pytest.mark.parametrize("history", [5, 10, 20])
def test_a_wrapped_broyden_history_stays_right(history):
    problem = hard().select(torch.arange(16))
    solver = Broyden(rtol=1e-3, max_steps=400, history=history)
    solution = poise.fixed_point(problem.f, problem.z0, problem.context, solver=solver)
    assert solution.ok and solution.evaluations > 2 * history


def test_default_anderson_solves_the_hard_cell():
    """torchdeq's default never reaches 1e-3."""
    problem = hard().select(torch.arange(16))
    assert poise.fixed_point(problem.f, problem.z0, problem.context, solver=Anderson(rtol=1e-6, max_steps=200)).ok


@pytest.mark.parametrize("history", [5, 20])
def test_torchdeqs_wrapped_broyden_history_breaks(torchdeq, history):
    problem = hard().select(torch.arange(16))
    _, record, made = torchdeq.solve(
        "broyden", problem.closed(), problem.z0, tol=1e-3, stop_mode="rel", max_iter=200, LBFGS_thres=history
    )
    assert made > 200 and record["rel_lowest"].isnan().all()
    whole = torchdeq.solve("broyden", problem.closed(), problem.z0, tol=1e-3, stop_mode="rel", max_iter=200)
    assert whole[1]["rel_lowest"].max() < 1e-3  # with every pair kept it would have come


def history_states(solve):
    """States held in storages of more than one, the most at any call of the cell."""
    problem = dense256()
    live = LiveBytes(problem.state_bytes)
    with torch.no_grad(), live:
        solve(live.watched(problem.f), problem)
    return live.history / problem.state_bytes


def test_a_history_does_not_grow_with_the_budget():
    def solve(f, problem):
        return poise.fixed_point(f, problem.z0, problem.context, solver=Broyden(max_steps=200, history=10), check=False)

    assert history_states(solve) <= 2 * 10 + 1


def test_torchdeqs_history_is_twice_the_budget_whatever_is_used(torchdeq):
    def solve(f, problem):
        return torchdeq.solve(
            "broyden", lambda z: f(z, problem.context), problem.z0, tol=1e-1, stop_mode="rel", max_iter=200
        )

    assert history_states(solve) >= 2 * 200


# Half precision.


def autocast_cell():
    generator = torch.Generator().manual_seed(0)
    weight = 0.9 * torch.linalg.qr(torch.randn(64, 64, generator=generator)).Q
    x = torch.randn(8, 64, generator=generator)
    return (lambda z, x: torch.tanh(z @ weight + x)), x


def test_under_autocast_a_tolerance_below_bfloat16_is_stalled():
    f, x = autocast_cell()
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.warns(ConvergenceWarning, match="STALLED"):
        solution = poise.fixed_point(f, torch.zeros(8, 64), x, solver=Anderson(rtol=1e-6, max_steps=200))
    assert solution.ok and solution.evaluations < 100


def test_under_autocast_torchdeq_misses_its_tolerance_silently(torchdeq):
    f, x = autocast_cell()
    with torch.autocast("cpu", dtype=torch.bfloat16), warnings.catch_warnings():
        warnings.simplefilter("error")
        _, record, made = torchdeq.solve(
            "anderson", lambda z: f(z, x).float(), torch.zeros(8, 64), tol=1e-3, stop_mode="rel", max_iter=100
        )
    assert made >= 100 and record["rel_lowest"].max() > 1e-3
