"""Newton-Krylov: where it converges when iteration does not, what it counts, and how it multiplies by J."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import newton_krylov

import poise
from poise import NewtonKrylov, Picard, Status
from poise.fixed_point.linear.jacobian_vector import JacobianVector
from poise.fixed_point.packed import PackedCell
from poise.fixed_point.state import Layout
from tests.contracts.problems import PROBLEMS, dense, linear


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def expansive(batch=4, n=12):
    """z = -2 z + sin(W z) / 2 + x: Picard is thrown away from its fixed point, whose Jacobian has radius about 2."""
    weight = draw(n, n) / n**0.5
    return (
        lambda z, x: -2 * z + 0.5 * torch.sin(z @ weight.T) + x,
        torch.zeros(batch, n).double(),
        draw(batch, n, seed=1),
    )


def test_an_expansive_map_is_solved_as_scipy_solves_it():
    f, z0, x = expansive()
    assert not poise.fixed_point(f, z0, x, solver=Picard(), on_failure="ignore").ok
    solution = poise.fixed_point(f, z0, x, solver=NewtonKrylov(rtol=1e-11))
    for sample in range(len(x)):
        found = newton_krylov(
            lambda z, i=sample: (f(torch.as_tensor(z).unsqueeze(0), x[i : i + 1])[0] - torch.as_tensor(z)).numpy(),
            z0[sample].numpy(), f_tol=1e-12,
        )  # fmt: skip
        assert torch.allclose(solution.state[sample], torch.as_tensor(found), rtol=0, atol=1e-9)


def test_it_converges_faster_than_linearly():
    f, z0, x = expansive()
    residuals = poise.fixed_point(f, z0, x, solver=NewtonKrylov(rtol=1e-13)).trace
    worst = residuals.nan_to_num(0.0).amax(dim=1)
    drops = [float(after / before) for before, after in pairwise(worst) if after > 1e-12]
    assert drops[-1] < 0.1 * drops[0]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_steps_count_the_products_on_each_sample(problem):
    case = PROBLEMS[problem]()
    calls = []

    def f(z, x):
        calls.append(len(x))
        return case.f(z, x)

    with torch.no_grad():
        solution = poise.fixed_point(f, case.z0, case.x, solver=NewtonKrylov(rtol=1e-9), check=False)
    assert solution.evaluations == len(calls) and solution.rows == sum(calls)
    assert int(solution.steps.sum()) <= solution.rows <= 2 * int(solution.steps.sum())


def test_an_easy_sample_does_not_pay_for_a_hard_one():
    case = linear(torch.tensor([0.1, 0.97]), n=32)
    both = poise.fixed_point(case.f, case.z0, case.x, solver=NewtonKrylov(rtol=1e-8))
    alone = poise.fixed_point(case.f, case.z0[:1], case.x[:1], solver=NewtonKrylov(rtol=1e-8))
    assert both.steps[0] == alone.steps[0] < both.steps[1]
    assert torch.allclose(both.state[0], alone.state[0], rtol=0, atol=1e-12)


def test_the_budget_counts_products_and_each_sample_has_its_own():
    case = linear(torch.tensor([0.1, 0.97]), n=64)
    solver = NewtonKrylov(rtol=1e-10, max_steps=20, inner=5)
    with pytest.warns(poise.ConvergenceWarning, match="BUDGET for 1 of 2"):
        solution = poise.fixed_point(case.f, case.z0, case.x, solver=solver)
    assert solution.status.tolist() == [Status.CONVERGED, Status.BUDGET]
    assert 20 <= solution.steps[1] <= 20 + 5


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("forward", [True, False])
def test_products_with_the_jacobian(problem, forward, monkeypatch):
    """Both ways, against the dense Jacobian."""
    case = PROBLEMS[problem]()
    layout = Layout.of(case.z0)
    cell = PackedCell(case.f, layout, case.x, True)
    z = layout.pack(case.solution())
    product = JacobianVector(cell, z)
    if not forward:
        monkeypatch.setattr(product, "_tangent", lambda v: (_ for _ in ()).throw(NotImplementedError()))
    v = draw(*z.shape, seed=5)
    jacobian = torch.autograd.functional.jacobian(lambda flat: cell(flat.reshape(z.shape)).reshape(-1), z.reshape(-1))
    expected = (jacobian @ v.reshape(-1)).reshape(z.shape)
    assert torch.allclose(product(v.squeeze(1)), expected.squeeze(1), rtol=0, atol=1e-12)
    rows = torch.tensor([1])
    assert torch.allclose(product.select(rows)(v[rows].squeeze(1)), expected[rows].squeeze(1), rtol=0, atol=1e-12)


class Doubled(torch.autograd.Function):
    """An operation without a tangent."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


@pytest.mark.parametrize(
    "operation", [lambda z: Doubled.apply(z) / 2, lambda z: F.scaled_dot_product_attention(z, z, z)]
)
def test_cells_with_operations_that_have_no_tangent(operation):
    x = draw(3, 4, 8)
    f = lambda z, x: 0.3 * operation(z) + x  # noqa: E731
    solution = poise.fixed_point(f, torch.zeros_like(x), x, solver=NewtonKrylov(rtol=1e-10))
    image = f(solution.state, x)
    assert solution.ok and (image - solution.state).norm() <= 1e-9 * image.norm()


def test_a_constant_map():
    solution = poise.fixed_point(lambda z, x: x, torch.zeros(2, 3), torch.ones(2, 3), solver=NewtonKrylov())
    assert solution.ok and torch.equal(solution.state, torch.ones(2, 3))


@pytest.mark.parametrize("options", [{"inner": 0}, {"forcing": 1.0}, {"scope": "prefix"}])
def test_refuses_options_that_mean_nothing(options):
    with pytest.raises(ValueError, match="NewtonKrylov"):
        NewtonKrylov(**options)


def test_fixed_budget_is_exact():
    case = dense()
    for budget in (1, 2, 7, 30):
        solver = NewtonKrylov(rtol=None, max_steps=budget, inner=4)
        solution = poise.fixed_point(case.f, case.z0, case.x, solver=solver)
        assert solution.evaluations == budget
