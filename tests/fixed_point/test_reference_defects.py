"""What the reference libraries get wrong (silently), one test each; the rest stands in the contracts."""

import pytest
import torch

import poise
from poise import Anderson, Broyden, ConvergenceWarning, Implicit, Picard, Status
from poise.fixed_point.tally import Counters
from tests.contracts.problems import dense, dense_gradients, linear


def hard(n=256):
    """The non-normal cell on which a bounded history must survive its wrap (spectral radius up to 0.99)."""
    generator = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn(n, n, generator=generator).double()).Q
    upper = torch.triu(torch.randn(n, n, generator=generator).double(), 1) * 0.5 / 16
    weight = (basis @ (torch.diag(torch.linspace(-1, 1, n).double() * 0.99) + upper) @ basis.T).float()
    return lambda z, x: torch.tanh(z @ weight.T + x), 0.02 * torch.randn(16, n, generator=generator)


def test_a_slow_neighbour_costs_a_fast_sample_nothing():
    """torchdeq: 7 evaluations alone, 44 to 224 beside a slow one, and another answer."""
    pair = linear(torch.tensor([0.3, 0.97]), n=64)
    for solver in (Picard(rtol=1e-3, max_steps=500), Anderson(rtol=1e-3), Broyden(rtol=1e-3)):
        both = poise.fixed_point(pair.f, pair.z0, pair.x, solver=solver)
        alone = poise.fixed_point(pair.f, pair.z0[:1], pair.x[:1], solver=solver)
        assert both.steps[0] == alone.steps[0] and both.steps[1] > 3 * both.steps[0]
        assert torch.allclose(both.state[0], alone.state[0], rtol=0, atol=1e-12)


def test_a_small_state_is_not_accepted_half_way():
    """torchdeq's absolute tolerance takes z = z / 2 + 1e-4 for solved after one step, with half the answer."""
    solution = poise.fixed_point(lambda z, x: 0.5 * z + x, torch.zeros(1, 4), torch.full((1, 4), 1e-4))
    assert torch.allclose(solution.state, torch.full((1, 4), 2e-4), rtol=1e-3)
    absolute = poise.fixed_point(
        lambda z, x: 0.5 * z + x, torch.zeros(1, 4), torch.full((1, 4), 1e-4), solver=Picard(rtol=0.0, atol=1e-3)
    )
    assert absolute.steps[0] == 1  # where it is asked for


def test_a_nan_sample_does_not_keep_the_batch_running():
    x = torch.ones(3, 4)
    x[1] = float("nan")
    with pytest.warns(ConvergenceWarning, match="NONFINITE"):
        solution = poise.fixed_point(lambda z, x: 0.5 * z + x, torch.zeros(3, 4), x, solver=Picard(max_steps=60))
    assert solution.evaluations < 20 and solution.steps[1] == 1


def test_every_sample_nan_is_no_crash():
    """locuslab/deq: an unbound variable."""
    with pytest.warns(ConvergenceWarning, match="NONFINITE for 2 of 2"):
        solution = poise.fixed_point(lambda z, x: z + x, torch.zeros(2, 4), torch.full((2, 4), float("nan")))
    assert not solution.ok


def test_the_default_gradient_is_the_gradient():
    """torchdeq's default is off by 0.58."""
    case = dense(gain=0.9)
    x = case.x.requires_grad_()
    solution = poise.fixed_point(case.f, case.z0, x, solver=Anderson(rtol=1e-6))
    (found,) = torch.autograd.grad(solution.state.sum(), x)
    exact = dense_gradients(case, torch.ones_like(case.z0))[0]
    assert (found - exact).norm() / exact.norm() < 1e-4


@pytest.mark.parametrize("budget", [1, 2, 3])
@pytest.mark.parametrize("solver", [Picard, Anderson, Broyden])
def test_a_short_budget_is_used(solver, budget):
    """torchdeq's Anderson returns the start untouched after two evaluations."""
    case = dense()
    solution = poise.fixed_point(case.f, case.z0, case.x, solver=solver(max_steps=budget), on_failure="ignore")
    start = (case.f(case.z0, case.x) - case.z0).norm()
    image = case.f(solution.state, case.x)
    assert solution.evaluations == budget and (image - solution.state).norm() < start


@pytest.mark.parametrize("history", [5, 10, 20])
def test_a_wrapped_broyden_history_stays_right(history):
    """torchdeq's overwritten columns never pass 0.13 here and end as NaN."""
    f, x = hard()
    solution = poise.fixed_point(f, torch.zeros_like(x), x, solver=Broyden(rtol=1e-3, max_steps=400, history=history))
    assert solution.ok and solution.evaluations > 2 * history


def test_default_anderson_solves_the_hard_cell():
    """torchdeq's default never reaches 1e-3."""
    f, x = hard()
    solution = poise.fixed_point(f, torch.zeros_like(x), x, solver=Anderson(rtol=1e-6, max_steps=200))
    assert solution.ok


def test_under_autocast_a_tolerance_below_bfloat16_is_stalled():
    """torchdeq misses it silently."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 64)
    torch.nn.init.orthogonal_(linear.weight, gain=0.9)
    x = torch.randn(8, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.warns(ConvergenceWarning, match="STALLED"):
        solution = poise.fixed_point(
            lambda z, x: torch.tanh(linear(z) + x), torch.zeros(8, 64), x, solver=Anderson(rtol=1e-6, max_steps=200)
        )
    assert solution.ok and solution.evaluations < 100


def test_gradients_under_autocast():
    torch.manual_seed(0)
    linear = torch.nn.Linear(32, 32)
    torch.nn.init.orthogonal_(linear.weight, gain=0.7)
    x = torch.randn(4, 32)

    def gradient(enabled):
        linear.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            state = poise.fixed_point(
                lambda z, x: torch.tanh(linear(z) + x).float(), torch.zeros(4, 32), x,
                solver=Anderson(rtol=1e-2), adjoint=Implicit(poise.GMRES(rtol=1e-2)),
            ).state  # fmt: skip
            loss = state.square().sum()
        loss.backward()
        return linear.weight.grad.clone()

    exact = gradient(False)
    assert (gradient(True) - exact).norm() / exact.norm() < 0.1


def test_pickle_of_a_solution_s_status():
    assert Status.CONVERGED == 0 and Status(4).name == "NONFINITE"


def test_the_second_backward_is_the_first():
    """torchdeq's hook gives the one-step gradient the second time."""
    case = dense()
    x = case.x.requires_grad_()
    state = poise.fixed_point(case.f, case.z0, x).state
    first = torch.autograd.grad(state.sum(), x, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(state.sum(), x)[0], first)


def test_counting_does_not_touch_random_numbers():
    case = dense()
    before = torch.get_rng_state()
    poise.fixed_point(case.f, case.z0, case.x.requires_grad_()).state.sum().backward()
    assert torch.equal(torch.get_rng_state(), before)


def test_counters_count():
    case, counters = dense(), Counters()
    for _ in range(3):
        poise.fixed_point(case.f, case.z0, case.x.requires_grad_(), counters=counters).state.sum().backward()
    assert counters.forward.solves == counters.backward.solves == 3
    assert counters.forward.statuses == {"CONVERGED": 12} and counters.forward.mean_evaluations > 2
    counters.reset()
    assert counters.forward.solves == 0 and counters.forward.statuses == {}
