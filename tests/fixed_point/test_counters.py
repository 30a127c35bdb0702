"""What is counted, and what counting leaves alone."""

import torch

import poise
from poise import Anderson, Implicit, Status
from poise.fixed_point.tally import Counters
from tests.contracts.problems import dense


def test_pickle_of_a_solution_s_status():
    assert Status.CONVERGED == 0 and Status(4).name == "NONFINITE"


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
