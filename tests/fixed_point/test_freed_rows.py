"""Finished samples leave the backward: with a context the cell is evaluated again on the rows still at work."""

import dataclasses
import weakref

import pytest
import torch
import torch.autograd.forward_ad as forward_ad

import poise
from poise import GMRES, Anderson, BiCGSTAB, Broyden, ConvergenceWarning, Dense, Equilibrium, Implicit, Neumann, Status
from poise.fixed_point.linear.base import LIVE_SHARE
from tests.contracts.problems import linear

CONTRACTIONS = torch.cat([torch.linspace(0.05, 0.5, 12), torch.tensor([0.7, 0.9, 0.95, 0.97])])
FREEING = {
    "gmres": GMRES(rtol=1e-10),
    "gmres_restarted": GMRES(rtol=1e-10, restart=8, max_steps=400),
    "bicgstab": BiCGSTAB(rtol=1e-10, max_steps=400),
    "anderson": Anderson(rtol=1e-10, max_steps=400),
    "broyden": Broyden(rtol=1e-10, max_steps=400),
}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


WEIGHTS = draw(len(CONTRACTIONS), 16, seed=3)


class Mark(torch.autograd.Function):
    """Identity whose graph holds a token."""

    @staticmethod
    def forward(ctx, x, token):
        ctx.token = token
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class Token:
    pass


class Tanh:
    """tanh(c z W + x) with what is a sample's in the context (c, x); keeps account of its evaluations."""

    def __init__(self, n=16, dtype=torch.float64):
        weight = draw(n, n, seed=1)
        self.weight = (weight / torch.linalg.matrix_norm(weight, 2)).to(dtype).requires_grad_()
        self.rows, self.dtypes, self.graphs, self.alive = [], [], [], []

    def __call__(self, z, context):
        c, x = context
        product, token = z @ self.weight, Token()
        self.rows.append(len(z))
        self.alive.append(sum(graph() is not None for graph in self.graphs))
        self.dtypes.append(product.dtype)
        self.graphs.append(weakref.ref(token))
        return torch.tanh(c.unsqueeze(1) * Mark.apply(product, token) + x)


def solve(cell, x, c=CONTRACTIONS, adjoint=None, **options):
    context = (c.to(x.dtype), x)
    options = {"solver": Anderson(rtol=1e-12, max_steps=300), "check": False, **options}
    return poise.fixed_point(
        cell, torch.zeros_like(x), context, adjoint=adjoint or Implicit(GMRES(rtol=1e-10)), **options
    )


def mixed_input():
    return draw(len(CONTRACTIONS), 16, seed=2).requires_grad_()


@pytest.mark.parametrize("name", FREEING)
def test_a_mixed_batch_costs_half_and_answers_the_same(name):
    """64 linear samples of contraction 0.1 to 0.97, as in the bench of rows."""
    case = linear(torch.linspace(0.1, 0.97, 64), n=64)
    weights = draw(64, 64)
    solver = dataclasses.replace(FREEING[name], rtol=1e-5)
    options = {"solver": Anderson(rtol=1e-8, max_steps=300), "adjoint": Implicit(solver), "check": False}
    x = case.x.detach().requires_grad_()
    solution = poise.fixed_point(case.f, case.z0, x, **options)
    (found,) = torch.autograd.grad((solution.state * weights).sum(), x)
    backward = solution.backward
    assert backward.ok and backward.steps.sum() < backward.rows <= 0.5 * 64 * int(backward.steps.max())
    for sample in (0, 31, 52, 63):
        own = case.x[sample : sample + 1].detach().requires_grad_()
        alone = poise.fixed_point(case.f, case.z0[:1], own, **options)
        (expected,) = torch.autograd.grad((alone.state * weights[sample]).sum(), own)
        assert alone.backward.steps[0] == backward.steps[sample]
        # Kernels round differently for another number of rows; what a recurrence makes of that is its own.
        error = (found[sample] - expected[0]).abs().max() / expected.abs().max()
        assert error <= (1e-9 if name in ("bicgstab", "broyden") else 1e-12)


@pytest.mark.parametrize("moves", [True, False])
def test_a_state_made_in_a_dual_level_frees_its_rows_as_well(moves):
    case = linear(torch.linspace(0.1, 0.97, 64), n=64)
    weights, tangent = draw(64, 64), draw(*case.x.shape, seed=4)
    rows = []

    def f(z, x):
        rows.append(len(z))
        return case.f(z, x)

    def solved(x):
        adjoint = Implicit(GMRES(rtol=1e-5))
        return poise.fixed_point(f, case.z0, x, solver=Anderson(rtol=1e-8, max_steps=300), adjoint=adjoint, check=False)

    x = case.x.detach().requires_grad_()
    expected = solved(x)
    (gradient,) = torch.autograd.grad((expected.state * weights).sum(), x)
    with forward_ad.dual_level():
        solution = solved(forward_ad.make_dual(x, tangent) if moves else x)
        state = forward_ad.unpack_dual(solution.state).primal
    before = len(rows)
    (found,) = torch.autograd.grad((state * weights).sum(), x)
    again = rows[before:]
    assert again and max(again) <= LIVE_SHARE * 64  # the cell was evaluated anew, on ever fewer samples
    assert solution.backward.rows == expected.backward.rows <= 0.5 * 64 * int(expected.backward.steps.max())
    assert torch.equal(found, gradient)


@pytest.mark.parametrize("name", FREEING)
def test_gradients_of_shared_weights_are_those_of_a_direct_solve(name):
    cell, x = Tanh(), mixed_input()
    found, expected = (
        torch.autograd.grad((solve(cell, x, adjoint=Implicit(solver)).state * WEIGHTS).sum(), [x, cell.weight])
        for solver in (FREEING[name], Dense(rtol=1e-8))
    )
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-8 * b.abs().max().item())


def test_rows_are_those_really_made():
    cell, x = Tanh(), mixed_input()
    solution = solve(cell, x)
    cell.rows.clear()
    solution.state.backward(WEIGHTS)
    recorded = list(cell.rows)  # what the backward evaluated: ever fewer rows
    assert recorded and recorded == sorted(set(recorded), reverse=True) and recorded[0] <= LIVE_SHARE * len(x)
    products = solution.backward.evaluations - len(recorded)
    assert products == solution.backward.steps.max()
    # Every product is over the rows of the last evaluation: by the steps of the samples, when there was which.
    live = [int((solution.backward.steps > product).sum()) for product in range(products)]
    batch, rows = len(x), sum(recorded)
    for number in live:
        if number <= LIVE_SHARE * batch:
            batch = number
        rows += batch
    assert solution.backward.rows == rows


@pytest.mark.parametrize("solver", [GMRES(rtol=1e-10), Anderson(rtol=1e-10), Neumann(terms=50), Dense()])
def test_without_a_context_nothing_is_evaluated_again(solver):
    cell, x = Tanh(), mixed_input()
    solution = poise.fixed_point(
        lambda z: cell(z, (CONTRACTIONS.double(), x)), torch.zeros_like(x), adjoint=Implicit(solver),
        solver=Anderson(rtol=1e-12, max_steps=300), check=False,
    )  # fmt: skip
    cell.rows.clear()
    solution.state.backward(WEIGHTS)
    assert not cell.rows and solution.backward.rows == len(x) * solution.backward.evaluations


def test_what_was_recorded_for_fewer_rows_is_gone_with_its_use():
    cell, x = Tanh(), draw(64, 16).requires_grad_()
    solution = solve(cell, x, torch.linspace(0.01, 0.97, 64))
    before = len(cell.graphs)
    torch.autograd.grad(solution.state.square().sum(), x, retain_graph=True)
    assert cell.graphs[before - 1]() is not None  # that of the one evaluation with a graph is kept
    assert len(cell.graphs) > before + 2 and all(graph() is None for graph in cell.graphs[before:])
    assert max(cell.alive[before:]) <= 2  # that one, and the last for fewer rows


def test_a_second_backward_is_the_first():
    cell, x = Tanh(), mixed_input()
    solution = solve(cell, x)
    loss = (solution.state * WEIGHTS).sum()
    first, rows = torch.autograd.grad(loss, [x, cell.weight], retain_graph=True), solution.backward.rows
    second = torch.autograd.grad(loss, [x, cell.weight])
    assert all(map(torch.equal, first, second)) and solution.backward.rows == rows


def test_two_layers_share_a_cell():
    class Cell(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Tanh()
            self.weight = torch.nn.Parameter(self.inner.weight.detach())
            self.inner.weight = self.weight

        def inject(self, x):
            return (CONTRACTIONS.double(), x)

        def initial_state(self, context):
            return torch.zeros_like(context[1])

        def forward(self, z, context):
            return self.inner(z, context)

    cell, x = Cell(), mixed_input()
    gradients = []
    for linear_solver in (GMRES(rtol=1e-11), Dense(rtol=1e-8)):
        layers = [Equilibrium(cell, Anderson(rtol=1e-12, max_steps=300), Implicit(linear_solver)) for _ in range(2)]
        state = layers[1](layers[0](x))
        gradients.append(torch.autograd.grad((state * WEIGHTS).sum(), [x, cell.weight]))
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-9 * b.abs().max().item())


def test_a_cell_that_has_changed_is_not_evaluated_again():
    """The gradient is that of the forward's graph, which holds what it needs of the old weights."""
    cell, x = Tanh(), mixed_input()
    shift = torch.zeros(16).double()
    solution = solve(lambda z, context: cell(z, (context[0], context[1] + shift)), x)
    kept = solve(cell, x)
    (expected,) = torch.autograd.grad((kept.state * WEIGHTS).sum(), x)
    shift += 0.5
    (found,) = torch.autograd.grad((solution.state * WEIGHTS).sum(), x)
    assert torch.allclose(found, expected, rtol=0, atol=1e-9)
    assert solution.backward.rows > kept.backward.rows


@pytest.mark.parametrize("name", FREEING)
def test_a_derivative_that_is_not_finite_stays_with_its_sample(name):
    """The root has an infinite derivative at the fixed point 0 of sample 1, in the graph of every later product."""

    def f(z, context):
        c, x = context
        return c.unsqueeze(1) * torch.where(x > -9, torch.sin(z), z.abs().sqrt() * 0.0) + x.clamp_min(0)

    x = mixed_input().detach().abs()
    x[1] = -10.0
    x.requires_grad_()
    expected = solve(f, x, adjoint=Implicit(Dense(rtol=1e-8)), on_failure="ignore")
    found = solve(f, x, adjoint=Implicit(FREEING[name]), on_failure="ignore")
    assert found.ok
    gradients = [torch.autograd.grad((s.state * WEIGHTS).sum(), x)[0] for s in (found, expected)]
    others = torch.arange(len(x)) != 1
    assert found.backward.status[1] == Status.NONFINITE == expected.backward.status[1]
    assert (found.backward.status[others] == Status.CONVERGED).all()
    assert found.backward.rows < len(x) * int(found.backward.steps.max())
    assert torch.allclose(gradients[0][others], gradients[1][others], rtol=0, atol=1e-8)


def test_a_sample_without_a_forward_answer_is_left_out_of_the_backward():
    cell, x = Tanh(), mixed_input().detach()
    x[3] = float("nan")
    x.requires_grad_()
    with pytest.warns(ConvergenceWarning, match="NONFINITE for 1 of 16"):
        solution = solve(cell, x)
    others = torch.arange(len(x)) != 3
    (found,) = torch.autograd.grad((solution.state[others] * WEIGHTS[others]).sum(), x)
    y = x.detach()[others].requires_grad_()
    (expected,) = torch.autograd.grad((solve(cell, y, CONTRACTIONS[others]).state * WEIGHTS[others]).sum(), y)
    assert torch.allclose(found[others], expected, rtol=0, atol=1e-11)


def test_the_forwards_autocast_is_replayed():
    cell, x = Tanh(dtype=torch.float32), mixed_input().detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        solution = solve(cell, x, solver=Anderson(rtol=1e-2), adjoint=Implicit(GMRES(rtol=1e-3)))
    cell.dtypes.clear()
    solution.state.backward(WEIGHTS.float())
    assert cell.dtypes and set(cell.dtypes) == {torch.bfloat16}
    assert solution.backward.rows < len(x) * int(solution.backward.steps.max())


@pytest.mark.parametrize("linear_solver", [GMRES(rtol=1e-13), BiCGSTAB(rtol=1e-13), Anderson(rtol=1e-13), Dense()])
def test_second_order_where_samples_leave(linear_solver):
    case = linear(torch.tensor([0.01, 0.1, 0.2, 0.3, 0.9]), n=5)

    def solved(x):
        return poise.fixed_point(
            lambda z, x: case.f(z, x) + 0.1 * torch.sin(z), case.z0, x, check=False,
            solver=Anderson(rtol=1e-13), adjoint=Implicit(linear_solver),
        ).state  # fmt: skip

    x = case.x.detach().requires_grad_()
    assert torch.autograd.gradgradcheck(solved, (x,), atol=1e-5, fast_mode=True)


def test_a_recorded_gradient_is_that_of_one_point_where_the_forward_was_loose():
    cell, x = Tanh(), mixed_input()
    gradients = []
    for linear_solver in (GMRES(rtol=1e-13), Dense(rtol=1e-8)):
        context = (CONTRACTIONS.double(), x)
        solution = poise.fixed_point(
            cell, torch.zeros_like(x), context, solver=Anderson(rtol=0.1), adjoint=Implicit(linear_solver),
            parameters=[cell.weight], check=False,
        )  # fmt: skip
        loss = (solution.state * WEIGHTS).sum()
        gradients.append(torch.autograd.grad(loss, [x, cell.weight], create_graph=True))
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-11 * b.abs().max().item())
