"""Gradients that torchdeq 0.1.0 gets wrong, all without a word; in each pair poise comes first."""

import pytest
import torch
from torch import nn

import poise
from poise import GMRES, Anderson, Equilibrium, Implicit, Phantom
from tests.contracts.problems import dense, dense_gradients

TIGHT = {"solver": Anderson(rtol=1e-13, max_steps=200), "adjoint": Implicit(GMRES(rtol=1e-13))}


def relative_error(found, exact):
    return ((found - exact).norm() / exact.norm()).item()


def dense32():
    return dense(batch=2, n=32, gain=0.95)


def peer_gradient(torchdeq, case, **options):
    """The gradient of the input by torchdeq's layer, the forward solved to rounding."""
    layer = torchdeq.get_deq(f_tol=1e-13, f_max_iter=500, f_stop_mode="rel", **options)
    x = case.x.clone().requires_grad_()
    (state,), _ = layer(lambda z: case.f(z, x), case.z0)
    return torch.autograd.grad(state.sum(), x)[0]


# The default gradient.


def test_the_default_gradient_is_the_gradient():
    case = dense32()
    x = case.x.clone().requires_grad_()
    state = poise.fixed_point(case.f, case.z0, x, solver=Anderson(rtol=1e-6)).state
    (found,) = torch.autograd.grad(state.sum(), x)
    assert relative_error(found, dense_gradients(case, torch.ones_like(case.z0))[0]) < 1e-4


def test_gradcheck_passes_where_the_tolerances_are_tight():
    case = dense(batch=2, n=4)
    assert torch.autograd.gradcheck(
        lambda x: poise.fixed_point(case.f, case.z0, x, check=False, **TIGHT).state, case.x.clone().requires_grad_()
    )


def test_torchdeqs_default_gradient_is_one_step(torchdeq):
    case = dense32()
    exact = dense_gradients(case, torch.ones_like(case.z0))[0]
    assert relative_error(peer_gradient(torchdeq, case), exact) > 0.2
    steps = [relative_error(peer_gradient(torchdeq, case, grad=k), exact) for k in (1, 5, 10)]
    assert steps[0] > steps[1] > steps[2] > 1e-6


def test_torchdeqs_implicit_gradient_has_an_absolute_tolerance(torchdeq):
    case = dense(batch=2, n=4)
    x = case.x.clone().requires_grad_()

    def state(x, **options):
        layer = torchdeq.get_deq(ift=True, f_tol=1e-13, f_max_iter=500, f_stop_mode="rel", b_max_iter=500, **options)
        return layer(lambda z: case.f(z, x), case.z0)[0][0]

    assert torch.autograd.gradcheck(lambda x: state(x, b_tol=1e-12), x)
    # A loss divided by a million has gradients below the default tolerance of 1e-6: nothing is solved.
    exact = dense_gradients(case, torch.ones_like(case.z0))[0]
    (found,) = torch.autograd.grad(1e-6 * state(x).sum(), x)
    assert relative_error(1e6 * found, exact) > 0.1


def test_a_small_loss_has_the_same_gradient():
    case = dense(batch=2, n=4)
    x = case.x.clone().requires_grad_()
    state = poise.fixed_point(case.f, case.z0, x, solver=Anderson(rtol=1e-8)).state
    (found,) = torch.autograd.grad(1e-6 * state.sum(), x)
    assert relative_error(1e6 * found, dense_gradients(case, torch.ones_like(case.z0))[0]) < 1e-4


# Evaluation mode.


@pytest.mark.parametrize("adjoint", [Implicit(), Phantom(3)], ids=lambda value: type(value).__name__)
def test_input_gradients_do_not_depend_on_the_mode(adjoint):
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
    nn.init.orthogonal_(block[0].weight, gain=0.8)
    layer = Equilibrium(poise.nn.inject(block), adjoint=adjoint)
    x = torch.randn(3, 6, requires_grad=True)
    gradients = [torch.autograd.grad(mode(x).sum(), x)[0] for mode in (layer.train(), layer.eval())]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("options", [{"ift": True}, {"grad": 3}], ids=str)
def test_torchdeq_has_no_input_gradients_in_evaluation(torchdeq, options):
    case = dense()
    x = case.x.clone().requires_grad_()
    layer = torchdeq.get_deq(**options).eval()
    (state,), _ = layer(lambda z: case.f(z, x), case.z0)
    assert not state.requires_grad


# Second derivatives.


def weight_slope(slope_of, step=1e-5):
    """(d slope / d weight recorded, the same by a central difference), for z = tanh(weight z + x)."""
    x = torch.tensor([[0.3]], dtype=torch.float64)

    def slope(weight, create_graph):
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(slope_of(weight, leaf).sum(), leaf, create_graph=create_graph)[0].sum()

    weight = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    (recorded,) = torch.autograd.grad(slope(weight, True), weight)
    with torch.no_grad():
        ends = [weight + step, weight - step]
    high, low = (slope(end.requires_grad_(), False) for end in ends)
    return recorded.item(), ((high - low) / (2 * step)).item()


def test_second_derivatives_are_those_of_finite_differences():
    def state(weight, x):
        return poise.fixed_point(
            lambda z, x: torch.tanh(weight * z + x), torch.zeros(1, 1).double(), x, parameters=[weight], check=False,
            **TIGHT,
        ).state  # fmt: skip

    recorded, difference = weight_slope(state)
    assert recorded == pytest.approx(difference, rel=1e-6)


@pytest.mark.parametrize("options", [{"ift": True}, {"hook_ift": True}, {"grad": 1}], ids=str)
def test_torchdeqs_second_derivatives_are_wrong_without_an_error(torchdeq, options):
    tight = {"f_tol": 1e-13, "b_tol": 1e-13, "f_max_iter": 300, "b_max_iter": 300}

    def state(weight, x):
        layer = torchdeq.get_deq(**tight, **options)
        return layer(lambda z: torch.tanh(weight * z + x), torch.zeros(1, 1).double())[0][0]

    recorded, _ = weight_slope(state)
    _, difference = weight_slope(unrolled)
    assert abs(recorded - difference) > 0.02 * abs(difference)


def unrolled(weight, x):
    """The same fixed point by a long recorded iteration."""
    z = torch.zeros_like(x)
    for _ in range(80):
        z = torch.tanh(weight * z + x)
    return z


# Graphs that are used twice.


def test_the_second_backward_is_the_first():
    case = dense()
    x = case.x.clone().requires_grad_()
    state = poise.fixed_point(case.f, case.z0, x).state
    first = torch.autograd.grad(state.sum(), x, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(state.sum(), x)[0], first)


def test_two_calls_before_one_backward():
    case = dense()
    x = case.x.clone().requires_grad_()
    states = [poise.fixed_point(case.f, case.z0, scale * x, **TIGHT).state for scale in (1.0, 2.0)]
    (both,) = torch.autograd.grad(sum(state.sum() for state in states), x, retain_graph=True)
    assert torch.allclose(both, sum(torch.autograd.grad(state.sum(), x)[0] for state in states), rtol=1e-12)


def test_torchdeqs_hook_gives_the_one_step_gradient_the_second_time(torchdeq):
    case = dense()
    x = case.x.clone().requires_grad_()
    layer = torchdeq.get_deq(hook_ift=True, f_tol=1e-12, b_tol=1e-12, f_max_iter=300, b_max_iter=300)
    (state,), _ = layer(lambda z: case.f(z, x), case.z0)
    first = torch.autograd.grad(state.sum(), x, retain_graph=True)[0]
    second = torch.autograd.grad(state.sum(), x)[0]
    assert relative_error(second, first) > 0.2
    assert relative_error(second, peer_gradient(torchdeq, case)) < 1e-6


def test_torchdeqs_hook_recurs_after_two_calls(torchdeq):
    """It would go on until the stack is full; the backward solver is one that stops at the third level."""
    case = dense()
    x = case.x.clone().requires_grad_()
    depth = 0

    def nested(product, start, **options):
        nonlocal depth
        depth += 1
        if depth == 3:
            raise RecursionError("three backward solves within one another")
        return product(start + 1), [], {}

    torchdeq.register_solver("nested", nested)
    layer = torchdeq.get_deq(hook_ift=True, b_solver="nested")
    states = [layer(lambda z: case.f(z, x), case.z0)[0][0] for _ in range(2)]
    with pytest.raises(RecursionError):
        (states[0] + states[1]).sum().backward()


# Sampled states of the trajectory.


def test_recorded_states_are_as_many_as_asked_for_and_the_last_has_the_implicit_gradient():
    case = dense()
    x = case.x.clone().requires_grad_()
    solution = poise.fixed_point(case.f, case.z0, x, record=(5, 100, 200), check=False, **TIGHT)
    assert solution.evaluations < 100 and len(solution.trajectory) == 3  # the solve had ended at two of the three
    (found,) = torch.autograd.grad(solution.state.sum(), x, retain_graph=True)
    exact = dense_gradients(case, torch.ones_like(case.z0))[0]
    assert relative_error(found, exact) < 1e-8
    (late,) = torch.autograd.grad(solution.trajectory[-1].sum(), x)
    assert torch.equal(late, found)


def test_torchdeqs_sampled_states_are_fewer_and_carry_another_gradient_where_the_solve_stops_early(torchdeq):
    case = dense()
    options = {"ift": True, "f_tol": 1e-10, "b_tol": 1e-12, "f_max_iter": 300, "b_max_iter": 300}
    x = case.x.clone().requires_grad_()
    layer = torchdeq.get_deq(core="indexing", n_states=3, **options)
    states, _ = layer(lambda z: case.f(z, x), case.z0)
    assert len(states) == 1  # three were asked for
    (found,) = torch.autograd.grad(states[0].sum(), x)
    exact = dense_gradients(case, torch.ones_like(case.z0))[0]
    assert relative_error(found, exact) > 0.2
    assert relative_error(found, peer_gradient(torchdeq, case)) < 1e-6  # the one-step gradient
