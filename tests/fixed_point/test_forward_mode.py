"""Tangents of a fixed point, against the dense implicit derivative."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import nn

import poise
from poise import (
    GMRES,
    Anderson,
    ConvergenceWarning,
    Equilibrium,
    External,
    Implicit,
    JacobianFree,
    Neumann,
    NewtonKrylov,
    Phantom,
    Picard,
    Reversible,
    Unrolled,
)
from tests.contracts.problems import PROBLEMS, dense, flatten, unflatten

TIGHT = {"rtol": 1e-12, "max_steps": 300}
EXACT = {"solver": Anderson(**TIGHT), "adjoint": Implicit(GMRES(rtol=1e-12))}
ADJOINTS = {
    "implicit": Implicit(GMRES(rtol=1e-12)),
    "implicit_anderson": Implicit(Anderson(**TIGHT)),
    "neumann": Implicit(Neumann(terms=100)),
    "phantom": Phantom(steps=80),
    "phantom_neumann": Phantom(steps=120, damping=0.7, form="neumann"),
    "unrolled": Unrolled(),
    "unrolled_checkpointed": Unrolled(checkpoint=True),
}


def draw(like, seed=5):
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense_tangent(case, tangents):
    """(I - J)^-1 (df/dx dx + df/dw dw), J dense; df by central differences."""
    z = case.solution()

    def flat(vector):
        return flatten(case.f(unflatten(vector.reshape(flatten(z).shape), z), case.x)).reshape(-1)

    jacobian = torch.autograd.functional.jacobian(flat, flatten(z).reshape(-1))
    h = 1e-6
    with torch.no_grad():

        def shifted(step):
            for parameter, change in zip(case.parameters, tangents[1:], strict=True):
                parameter += step * change
            image = flatten(case.f(z, case.x + step * tangents[0]))
            for parameter, change in zip(case.parameters, tangents[1:], strict=True):
                parameter -= step * change
            return image

        moved = (shifted(h) - shifted(-h)) / (2 * h)
    eye = torch.eye(len(jacobian)).double()
    return torch.linalg.solve(eye - jacobian, moved.reshape(-1)).reshape(moved.shape)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", ADJOINTS)
def test_tangent_of_the_context(name, problem, grad):
    case = PROBLEMS[problem]()
    change = draw(case.x)
    solver = Picard(**TIGHT) if "unrolled" in name else Anderson(**TIGHT)
    with torch.set_grad_enabled(grad), forward_ad.dual_level():
        x = forward_ad.make_dual(case.x, change)
        state = poise.fixed_point(case.f, case.z0, x, solver=solver, adjoint=ADJOINTS[name]).state
        found = forward_ad.unpack_dual(flatten(state))
    still = [torch.zeros_like(parameter) for parameter in case.parameters]
    assert torch.allclose(found.primal, flatten(case.solution()), atol=1e-9)
    assert torch.allclose(found.tangent, dense_tangent(case, [change, *still]), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ADJOINTS)
def test_tangent_of_what_the_cell_closes_over(name):
    case = dense()
    (weight,), changes = case.parameters, [draw(case.x), draw(case.parameters[0])]
    solver = Picard(**TIGHT) if "unrolled" in name else Anderson(**TIGHT)

    def solve(x, weight):
        return poise.fixed_point(
            lambda z, x: torch.tanh(z @ weight.T + x), case.z0, x, solver=solver, adjoint=ADJOINTS[name]
        ).state

    expected = dense_tangent(case, changes)
    with torch.no_grad():
        _, found = torch.func.jvp(solve, (case.x, weight), tuple(changes))
    assert torch.allclose(found, expected, rtol=1e-7, atol=1e-7)
    with forward_ad.dual_level():
        state = solve(*map(forward_ad.make_dual, (case.x, weight), changes))
        assert torch.allclose(forward_ad.unpack_dual(state).tangent, expected, rtol=1e-7, atol=1e-7)


def test_jacobian_free_moves_by_one_evaluation():
    case = dense()
    change = draw(case.x)
    _, expected = torch.func.jvp(lambda x: case.f(case.solution(), x), (case.x,), (change,))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            _, found = torch.func.jvp(
                lambda x: poise.fixed_point(case.f, case.z0, x, solver=Anderson(**TIGHT), adjoint=JacobianFree()).state,
                (case.x,), (change,),
            )  # fmt: skip
        assert torch.allclose(found, expected, atol=1e-9)


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.w, self.u = nn.Linear(4, 4).double(), nn.Linear(4, 4).double()
        nn.init.orthogonal_(self.w.weight, gain=0.7)

    def inject(self, x):
        return self.u(x)

    def forward(self, z, context):
        return torch.tanh(self.w(z) + context)


def unrolled(cell, x, steps=120):
    context, z = cell.inject(x), torch.zeros_like(x)
    for _ in range(steps):
        z = cell(z, context)
    return z


def test_a_layer_under_functional_call():
    layer, x = Equilibrium(Cell(), **EXACT), torch.linspace(-1, 1, 12).reshape(3, 4).double()
    weights = {name: p.detach() for name, p in layer.named_parameters()}
    changes = {name: draw(p, seed) for seed, (name, p) in enumerate(weights.items())}
    _, found = torch.func.jvp(lambda w: torch.func.functional_call(layer, w, (x,)), (weights,), (changes,))

    class Long(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = layer.cell

        def forward(self, x):
            return unrolled(self.cell, x)

    _, expected = torch.func.jvp(lambda w: torch.func.functional_call(Long(), w, (x,)), (weights,), (changes,))
    assert torch.allclose(found, expected, atol=1e-9)


def test_an_equilibrium_inside_a_cell():
    layer = Equilibrium(Cell(), **EXACT).requires_grad_(False)
    x = torch.linspace(-1, 1, 8).reshape(2, 4).double()

    def f(inner):
        return lambda z, x: torch.tanh(0.5 * inner(z) + x)

    def plain(x):
        z = torch.zeros_like(x)
        for _ in range(60):
            z = f(lambda z: unrolled(layer.cell, z, 60))(z, x)
        return z

    solve = lambda x: poise.fixed_point(f(layer), torch.zeros(2, 4).double(), x, **EXACT).state  # noqa: E731
    _, found = torch.func.jvp(solve, (x,), (draw(x),))
    _, expected = torch.func.jvp(plain, (x,), (draw(x),))
    assert torch.allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("adjoint", [Implicit(GMRES(rtol=1e-12)), Unrolled()])
def test_the_gradient_of_a_tangent(adjoint):
    """Reverse over forward: a loss on directional derivatives is trained."""
    layer = Equilibrium(Cell(), Picard(**TIGHT), adjoint)
    x, change = torch.linspace(-1, 1, 12).reshape(3, 4).double().requires_grad_(), draw(torch.empty(3, 4))

    def slopes(solve):
        with forward_ad.dual_level():
            state = solve(forward_ad.make_dual(x, change))
            value, tangent = forward_ad.unpack_dual(state)
            loss = value.sin().sum() + tangent.square().sum()
        return torch.autograd.grad(loss, [x, *layer.parameters()])

    for found, expected in zip(slopes(layer), slopes(lambda x: unrolled(layer.cell, x)), strict=True):
        assert torch.allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_gradients_that_would_lack_their_tangent_are_refused():
    case = dense()
    x = case.x.requires_grad_()
    with forward_ad.dual_level():
        state = poise.fixed_point(case.f, case.z0, forward_ad.make_dual(x, draw(x)), **EXACT).state
        with pytest.raises(RuntimeError, match="would lack its own tangent; leave the level first"):
            state.square().sum().backward()
        still = poise.fixed_point(case.f, case.z0, x, **EXACT).state
        torch.autograd.grad(still.sum(), x)  # nothing moves it


def test_jvp_does_not_drop_a_graph_in_silence():
    layer, x = Equilibrium(Cell(), **EXACT), torch.ones(2, 4).double()
    with pytest.raises(RuntimeError, match=r"keeps no graph for a later backward.*torch.no_grad\(\)"):
        torch.func.jvp(layer, (x,), (x,))
    with torch.no_grad():
        torch.func.jvp(layer, (x,), (x,))


def test_reversible_and_external_solves_say_what_they_cannot():
    case = dense()
    for adjoint, solver, message in (
        (Reversible(), Picard(damping=0.5), r"carries no tangents forward; use Implicit\(\)"),
        (Unrolled(), External(lambda g, z: z), "cannot record"),
    ):
        for grad in (True, False):
            with torch.set_grad_enabled(grad), pytest.raises((RuntimeError, ValueError), match=message):
                torch.func.jvp(
                    lambda x, a=adjoint, s=solver: poise.fixed_point(
                        lambda z, x: 0.3 * z + x, case.z0, x, solver=s, adjoint=a, check=False
                    ).state,
                    (case.x,), (case.x,),
                )  # fmt: skip


def test_newton_s_products_inside_a_transform_are_refused():
    """In a dual level of torch.autograd they are had by two backwards."""
    case = dense()
    solver, change = NewtonKrylov(rtol=1e-10), draw(case.x)

    def solve(x):
        return poise.fixed_point(case.f, case.z0, x, solver=solver, adjoint=EXACT["adjoint"]).state

    with torch.no_grad():
        with pytest.raises(RuntimeError, match=r"inside a transform of torch.func; solve with Anderson\(\)"):
            torch.func.jvp(solve, (case.x,), (change,))
        with forward_ad.dual_level():
            found = forward_ad.unpack_dual(solve(forward_ad.make_dual(case.x, change))).tangent
    still = [torch.zeros_like(parameter) for parameter in case.parameters]
    assert torch.allclose(found, dense_tangent(case, [change, *still]), rtol=1e-7, atol=1e-7)


def test_a_tangent_that_was_not_solved_is_told_of():
    case = dense(gain=0.95)
    with (
        torch.no_grad(), forward_ad.dual_level(),
        pytest.warns(ConvergenceWarning, match="the tangent's solve ended BUDGET for 4 of 4 samples"),
    ):  # fmt: skip
        solution = poise.fixed_point(
            case.f, case.z0, forward_ad.make_dual(case.x, draw(case.x)), adjoint=Implicit(GMRES(rtol=1e-9, max_steps=2))
        )
    assert not solution.backward.ok and solution.backward.evaluations == 2


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_tangents_of_any_size_in_float32(scale):
    x = torch.ones(3, 4)
    with torch.no_grad():
        _, found = torch.func.jvp(
            lambda x: poise.fixed_point(lambda z, x: 0.5 * torch.sin(z) + x, torch.zeros(3, 4), x).state,
            (x,), (scale * x,),
        )  # fmt: skip
    z = poise.fixed_point(lambda z, x: 0.5 * torch.sin(z) + x, torch.zeros(3, 4), x).state
    assert torch.allclose(found / scale, 1 / (1 - 0.5 * torch.cos(z)), rtol=1e-4)


def test_a_nan_sample_leaves_the_others_their_tangent():
    case = dense()
    x = case.x.clone()
    x[1] = float("nan")
    with torch.no_grad(), pytest.warns(ConvergenceWarning, match="NONFINITE for 1 of 4"):
        _, found = torch.func.jvp(lambda x: poise.fixed_point(case.f, case.z0, x, **EXACT).state, (x,), (draw(x),))
        _, expected = torch.func.jvp(
            lambda x: poise.fixed_point(case.f, case.z0, x, **EXACT).state, (case.x,), (draw(x),)
        )
    assert torch.allclose(found[[0, 2, 3]], expected[[0, 2, 3]], atol=1e-10)
