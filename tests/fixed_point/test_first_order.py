"""Implicit(second_order=False): the same gradient, and nothing held for another."""

import gc
import weakref

import pytest
import torch

import poise
from poise import GMRES, Anderson, Implicit
from poise.nn import activation_bytes


def problem(positions=6):
    generator = torch.Generator().manual_seed(0)
    weight = (0.3 * torch.randn(8, 8, generator=generator, dtype=torch.float64)).requires_grad_()
    x = torch.randn(4, positions, 8, generator=generator, dtype=torch.float64).requires_grad_()
    return weight, x


def solve(weight, x, scope="sample", **options):
    context = 2 * x  # computed: a tensor of its own
    return poise.fixed_point(
        lambda z, c: torch.tanh(z @ weight + c), torch.zeros_like(context).detach(), context,
        solver=Anderson(rtol=1e-10, scope=scope), adjoint=Implicit(GMRES(rtol=1e-10), **options), parameters=[weight],
    ), context  # fmt: skip


@pytest.mark.parametrize("scope", ["sample", "prefix"])
def test_the_gradient_is_the_same(scope):
    found = []
    for second_order in (True, False):
        weight, x = problem()
        solution, _ = solve(weight, x, scope, second_order=second_order)
        found.append(torch.autograd.grad(solution.state.square().sum(), [weight, x]))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_a_second_derivative_is_refused_in_one_sentence():
    weight, x = problem()
    solution, _ = solve(weight, x, second_order=False)
    with pytest.raises(RuntimeError, match=r"Implicit\(second_order=False\).*use Implicit\(\)"):
        torch.autograd.grad(solution.state.sum(), x, create_graph=True)


def test_state_and_context_are_not_held():
    weight, x = problem(positions=50)
    held = {
        second_order: activation_bytes(
            lambda second_order=second_order: solve(weight, x, "prefix", second_order=second_order)[0].state,
            [weight, x],
        )
        for second_order in (True, False)
    }
    # The state, which the evaluation holds as well for its product with the weight, is one tensor; the context another.
    assert held[True] - held[False] >= 4 * 50 * 8 * 8


def test_by_prefix_the_context_goes_with_the_caller():
    weight, x = problem()
    solution, context = solve(weight, x, "prefix", second_order=False)
    state, gone = solution.state, weakref.ref(context)
    del solution, context
    gc.collect()
    assert gone() is None
    state.sum().backward()
    assert x.grad.isfinite().all()


def test_a_graph_may_be_used_twice():
    weight, x = problem()
    state = solve(weight, x, second_order=False)[0].state
    first = torch.autograd.grad(state.sum(), x, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(state.sum(), x)[0], first)
