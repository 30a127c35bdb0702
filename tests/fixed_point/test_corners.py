"""Corners that were wrong once: each test fails without its remedy."""

import warnings
from collections import UserDict
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

import poise
from poise import (
    GMRES,
    Anderson,
    Broyden,
    CellWarning,
    ConvergenceWarning,
    Equilibrium,
    External,
    Implicit,
    Picard,
    Status,
    Unrolled,
)

TIGHT = {"solver": Anderson(rtol=1e-12), "adjoint": Implicit(GMRES(rtol=1e-12))}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("solver", [Picard(), Anderson(), Broyden(), Picard(scope="prefix"), Anderson(scope="prefix")])
def test_infinity_has_not_converged(solver):
    x = torch.tensor([-2.0, 100.0]).reshape(2, 1, 1)
    with pytest.warns(ConvergenceWarning, match="NONFINITE for 1 of 2"):
        solution = poise.fixed_point(lambda z, x: torch.exp(z + x), torch.zeros(2, 1, 1), x, solver=solver, check=False)
    assert solution.status.tolist() == [Status.CONVERGED, Status.NONFINITE]


def twice_in_the_context(x, weight):
    return (lambda z, c: torch.tanh(z @ weight + c[0] * c[1].cos())), (x, x), [weight]


def context_and_parameter(x, weight):
    return (lambda z, c: torch.tanh(z @ weight + c * x[:1].cos())), x, [weight, x]


def parameter_twice(x, weight):
    return (lambda z, c: torch.tanh(z @ weight + c)), x, [weight, weight]


@pytest.mark.parametrize("make", [twice_in_the_context, context_and_parameter, parameter_twice])
def test_a_tensor_named_twice_has_its_gradient_once(make):
    """gradgradcheck cannot see this: it doubles both sides."""
    weight, x = (0.3 * draw(4, 4)).requires_grad_(), draw(3, 4, seed=1).requires_grad_()
    f, context, parameters = make(x, weight)

    def solve(**options):
        return poise.fixed_point(f, torch.zeros(3, 4).double(), context, parameters=parameters, check=False, **options)

    state = solve(**TIGHT).state
    plain = torch.autograd.grad(state.sin().sum(), [x, weight], retain_graph=True)
    recorded = torch.autograd.grad(state.sin().sum(), [x, weight], create_graph=True)
    unrolled = solve(solver=Picard(rtol=1e-12, max_steps=200), adjoint=Unrolled()).state
    expected = torch.autograd.grad(unrolled.sin().sum(), [x, weight], create_graph=True)
    for a, b, c in zip(plain, recorded, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-11) and torch.allclose(a, c, rtol=1e-8, atol=1e-10)
    second = torch.autograd.grad(recorded[0].cos().sum(), [x, weight])
    for a, b in zip(second, torch.autograd.grad(expected[0].cos().sum(), [x, weight]), strict=True):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-9)


def test_a_computed_context_that_is_also_closed_over_is_refused_in_second_order():
    weight, x = (0.3 * draw(4, 4)).requires_grad_(), draw(1, 4, seed=1).requires_grad_()
    computed = 1.3 * x
    state = poise.fixed_point(
        lambda z, c: torch.tanh(z @ weight + c + computed.sin()), torch.zeros(1, 4).double(), computed,
        parameters=[weight], **TIGHT,
    ).state  # fmt: skip
    torch.autograd.grad(state.sum(), x, retain_graph=True)
    with pytest.raises(RuntimeError, match="also closes over a tensor that its context holds; let it use"):
        torch.autograd.grad(state.sum(), x, create_graph=True)


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3).double()
        nn.init.orthogonal_(self.linear.weight, gain=0.4)

    def forward(self, z, context):
        return torch.tanh(self.linear(z) + context)


class Outer(nn.Module):
    """An equilibrium inside a cell."""

    def __init__(self):
        super().__init__()
        self.inner = Equilibrium(Inner(), **TIGHT)
        self.mix = nn.Linear(3, 3).double()
        nn.init.orthogonal_(self.mix.weight, gain=0.4)

    def forward(self, z, context):
        return torch.tanh(0.5 * self.inner(self.mix(z) + context))


def test_second_order_through_an_equilibrium_in_a_cell():
    outer, x = Outer(), draw(2, 3).requires_grad_()

    def products(state):
        (slope,) = torch.autograd.grad(state.sin().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.cos().sum(), [x, *outer.parameters()])

    found = products(Equilibrium(outer, **TIGHT)(x))
    outer.inner.adjoint, outer.inner.solver = Unrolled(), Picard(rtol=1e-12)
    z = torch.zeros_like(x)
    for _ in range(60):
        z = outer(z, x)
    for a, b in zip(found, products(z), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "f", [lambda z, x: torch.ones_like(z), lambda z, x: torch.zeros_like(z), lambda z, x: z.detach()]
)
def test_a_constant_map_is_solved(f):
    x = torch.zeros(3, 2, requires_grad=True)
    solution = poise.fixed_point(f, torch.zeros(3, 2), x)
    assert solution.ok and not solution.state.requires_grad


def test_a_batch_that_is_nan_throughout_does_not_break_the_backward():
    layer = Equilibrium(poise.nn.inject(nn.Linear(4, 4)), Picard())
    nn.init.constant_(layer.cell.block.weight, float("nan"))
    with pytest.warns(ConvergenceWarning, match="NONFINITE for 3 of 3"):
        layer(torch.randn(3, 4)).sum().backward()
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_slow_progress_in_low_precision_is_no_stall():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        solution = poise.fixed_point(
            lambda z, x: 0.95 * z + x, torch.zeros(2, 3), torch.ones(2, 3), solver=Picard(max_steps=1000)
        )
    assert (solution.status == Status.CONVERGED).all() and solution.residual.max() <= 1e-4


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
@pytest.mark.parametrize("solver", [Picard(), Anderson(), Broyden(), Anderson(scope="prefix")])
def test_sizes_whose_squares_leave_float32(solver, scale):
    x = (scale * torch.ones(3, 4, 1)).requires_grad_()
    solution = poise.fixed_point(lambda z, x: 0.5 * z + x, torch.zeros(3, 4, 1), x, solver=solver)
    assert solution.ok and torch.allclose(solution.state / scale, torch.full((3, 4, 1), 2.0), rtol=1e-3)
    (found,) = torch.autograd.grad(scale * solution.state.sum(), x)
    assert torch.allclose(found / scale, torch.full((3, 4, 1), 2.0), rtol=1e-3)


def test_a_tiny_start_may_grow_to_an_ordinary_answer():
    solution = poise.fixed_point(lambda z: torch.tanh(2 * z), torch.full((1, 1), 1e-9), solver=Picard())
    assert solution.ok and abs(float(solution.state) - 0.9575) < 1e-3


def test_a_saturated_sample_is_not_taken_for_an_ignored_context():
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    x[0] = -50.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        poise.fixed_point(lambda z, x: torch.relu(0.5 * z + x) + 1, torch.zeros(8, 3), x)


def test_a_module_with_batch_norm_gets_one_sentence():
    norm = nn.BatchNorm1d(4)
    with pytest.warns(CellWarning) as caught:
        poise.fixed_point(lambda z, x: 0.5 * norm(z + x), torch.zeros(8, 4), torch.randn(8, 4), on_failure="ignore")
    assert str(caught[0].message).endswith(".") and str(caught[0].message).count(". ") == 0


@dataclass
class Derived:
    x: torch.Tensor
    doubled: torch.Tensor = field(init=False)

    def __post_init__(self):
        self.doubled = 2 * self.x


def test_contexts_of_every_kind_follow_their_samples():
    x = torch.linspace(0.1, 0.9, 6).unsqueeze(1)
    kinds = torch.arange(6), x > 0.5, None, "a name", Derived(x)

    def f(z, context):
        number, large, nothing, name, derived = context
        assert nothing is None and name == "a name" and torch.equal(derived.doubled, 2 * derived.x)
        return derived.x * z + number.unsqueeze(1) + large

    solution = poise.fixed_point(f, torch.zeros(6, 1), kinds, solver=Picard(rtol=1e-6, max_steps=300))
    expected = (torch.arange(6).unsqueeze(1) + (x > 0.5)) / (1 - x)
    assert solution.rows < 6 * solution.evaluations and torch.allclose(solution.state, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"solver": "anderson"}, r"solver='anderson' is no Solver; pass a value such as Anderson"),
        ({"solver": Anderson}, "is no Solver; pass a value such as Anderson"),
        ({"adjoint": Implicit}, r"is no Adjoint; pass a value such as Implicit\(\)"),
        ({"valid": [True] * 3}, "valid is one mask or 1 of them"),
        ({"context": UserDict(x=torch.zeros(3, 2))}, "context is a UserDict, whose rows cannot be selected"),
        ({"context": {"a": [object()]}}, r"context\['a'\]\[0\] is a object"),
    ],
)
def test_wrong_kinds_are_refused_by_name(call, message):
    with pytest.raises(TypeError, match=message):
        poise.fixed_point(lambda z, c=None: 0.5 * z, torch.zeros(3, 2), **call)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Implicit(GMRES),
        lambda: Implicit(External(lambda g, z: z)),
        lambda: Anderson(max_steps=2.5),
        lambda: Anderson(rtol="a"),
        lambda: Equilibrium(nn.Identity(), eval_solver="x"),
    ],
)
def test_wrong_kinds_of_options_are_refused(make):
    with pytest.raises(TypeError, match="; pass"):
        make()


def test_the_prefix_scope_needs_a_position():
    with pytest.raises(ValueError, match="at least one position"):
        poise.fixed_point(lambda z: z, torch.zeros(2, 0, 3), solver=Anderson(scope="prefix"))
