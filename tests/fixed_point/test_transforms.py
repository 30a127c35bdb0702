"""The transforms of torch.func around a solve: right, or refused in one sentence."""

import pytest
import torch
from torch import func, nn

import poise
from poise import GMRES, Anderson, Equilibrium, Implicit, JacobianFree, Phantom, Picard, Reversible, Unrolled
from tests.contracts.problems import dense

TIGHT = {"rtol": 1e-12, "max_steps": 300}
RECORDING = [Unrolled(), Phantom(steps=100)]
SOLVING = [Implicit(GMRES(rtol=1e-12)), Phantom(steps=9, form="neumann"), Reversible()]


def problem():
    case = dense(batch=3, n=4, gain=0.6)
    return case.x, case.parameters[0].detach()


def plain(x, weight):
    z = torch.zeros_like(x)
    for _ in range(120):
        z = torch.tanh(z @ weight.T + x)
    return z


def solve(adjoint):
    solver = Picard(damping=0.5, rtol=1e-6) if isinstance(adjoint, Reversible) else Picard(**TIGHT)

    def state(x, weight):
        return poise.fixed_point(
            lambda z, x: torch.tanh(z @ weight.T + x), torch.zeros(3, 4).double(), x, solver=solver, adjoint=adjoint
        ).state

    return state


REVERSE = {
    "grad": lambda s, x, w: func.grad(lambda x: s(x, w).sin().sum())(x),
    "grad of weights": lambda s, x, w: func.grad(lambda w: s(x, w).sin().sum())(w),
    "vjp": lambda s, x, w: func.vjp(lambda x: s(x, w), x)[1](x.cos())[0],
    "jacrev": lambda s, x, w: func.jacrev(lambda x: s(x, w))(x),
    "hessian": lambda s, x, w: func.hessian(lambda x: s(x, w).sin().sum())(x),
}


@pytest.mark.parametrize("name", REVERSE)
@pytest.mark.parametrize("adjoint", RECORDING, ids=str)
def test_recorded_steps_follow_every_transform(adjoint, name):
    x, weight = problem()
    assert torch.allclose(REVERSE[name](solve(adjoint), x, weight), REVERSE[name](plain, x, weight), atol=1e-8)


@pytest.mark.parametrize("adjoint", RECORDING, ids=str)
def test_jacfwd_of_recorded_steps(adjoint):
    x, weight = problem()
    found = func.jacfwd(lambda x: solve(adjoint)(x, weight))(x)
    assert torch.allclose(found, func.jacfwd(lambda x: plain(x, weight))(x), atol=1e-8)


def test_jacobian_free_follows_as_one_evaluation():
    x, weight = problem()
    z = plain(x, weight)
    found = func.grad(lambda x: solve(JacobianFree())(x, weight).sin().sum())(x)
    assert torch.allclose(found, func.grad(lambda x: torch.tanh(z @ weight.T + x).sin().sum())(x), atol=1e-9)


@pytest.mark.parametrize("name", REVERSE)
@pytest.mark.parametrize("adjoint", SOLVING, ids=str)
def test_a_backward_that_solves_is_refused_in_reverse(adjoint, name):
    x, weight = problem()
    with pytest.raises(RuntimeError, match=r"use torch.autograd.grad or torch.autograd.functional, or an adjoint"):
        REVERSE[name](solve(adjoint), x, weight)


def test_what_needs_no_gradient_may_stand_in_a_gradient():
    """A target network within a loss."""
    x, weight = problem()

    def loss(x, solve):
        with torch.no_grad():
            target = solve(x, weight)
        return (x - target).square().sum()

    assert torch.allclose(func.grad(loss)(x, solve(SOLVING[0])), func.grad(loss)(x, plain), atol=1e-9)


def test_batched_tangents_are_refused():
    x, weight = problem()
    with pytest.raises(
        RuntimeError, match=r"jacfwd and vmap batch several tangents.*torch.func.jvp for each direction"
    ):
        func.jacfwd(lambda x: solve(SOLVING[0])(x, weight))(x)


@pytest.mark.parametrize("adjoint", SOLVING, ids=str)
def test_batched_gradients_are_refused(adjoint):
    x, weight = problem()
    x.requires_grad_()
    state = solve(adjoint)(x, weight)
    with pytest.raises(RuntimeError, match="several gradients were batched into one backward.*one after the other"):
        torch.autograd.grad(state, x, torch.stack([state.detach(), x.detach()]), is_grads_batched=True)
    with pytest.raises(RuntimeError, match="several gradients were batched into one backward"):
        torch.autograd.functional.jacobian(lambda x: solve(adjoint)(x, weight), x.detach(), vectorize=True)


def test_a_jacobian_by_rows():
    x, weight = problem()
    found = torch.autograd.functional.jacobian(lambda x: solve(SOLVING[0])(x, weight), x)
    assert torch.allclose(found, torch.autograd.functional.jacobian(lambda x: plain(x, weight), x), atol=1e-9)


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Linear(4, 4).double()

    def forward(self, z, x):
        return 0.3 * torch.tanh(self.w(z)) + x


MEMBERS = "ensemble, as rows of one batch with their own weights in the context"


@pytest.mark.parametrize("budget", [{"rtol": 1e-3}, {"rtol": None, "max_steps": 5}])
@pytest.mark.parametrize("adjoint", [Implicit(), Unrolled(), Phantom()], ids=str)
@pytest.mark.parametrize("grad", [True, False])
def test_vmap_is_refused(grad, adjoint, budget):
    """Over samples, over weights that the cell closes over, and over the parameters of a layer."""
    x, weight = problem()

    def state(x, weight):
        return poise.fixed_point(
            lambda z, x: torch.tanh(z @ weight.T + x), torch.zeros(3, 4).double(), x, solver=Anderson(**budget),
            adjoint=adjoint, on_failure="ignore",
        ).state  # fmt: skip

    layers = [Equilibrium(Cell(), Picard(**budget), adjoint) for _ in range(2)]
    parameters, buffers = func.stack_module_state(layers)
    with torch.set_grad_enabled(grad):
        for call in (
            lambda: func.vmap(state, (0, None))(torch.stack([x, x]), weight),
            lambda: func.vmap(state, (None, 0))(x, torch.stack([weight, weight])),
            lambda: func.vmap(lambda p, b: func.functional_call(layers[0], (p, b), (x,)))(parameters, buffers),
        ):
            with pytest.raises(RuntimeError, match=MEMBERS):
                call()
    assert layers[0].counters.forward.solves == 0


def test_an_ensemble_as_rows_of_one_batch():
    """What the refusal advises: each row has its own weights, and its own gradient."""
    x, weight = problem()
    weights = torch.stack([weight, weight / 2]).repeat_interleave(3, dim=0).requires_grad_()
    rows = torch.cat([x, x])

    def f(z, context):
        x, weights = context
        return torch.tanh(torch.einsum("bij,bj->bi", weights, z) + x)

    state = poise.fixed_point(f, torch.zeros(6, 4).double(), (rows, weights), solver=Anderson(**TIGHT)).state
    expected = func.vmap(plain, (None, 0))(x, torch.stack([weight, weight / 2]))
    assert torch.allclose(state, expected.flatten(0, 1), atol=1e-9)


def test_an_unbatched_solve_within_vmap_is_right():
    x, weight = problem()
    with torch.no_grad():
        found = func.vmap(lambda s: s * solve(Implicit())(x, weight).sum())(torch.arange(3.0).double())
    assert torch.allclose(found, torch.arange(3.0).double() * plain(x, weight).sum(), atol=1e-9)
