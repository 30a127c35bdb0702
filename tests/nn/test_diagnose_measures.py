"""A diagnosis measures what oracles measure, in the precision in which the cell computes."""

import pytest
import torch
import torch.nn.functional as F

from poise import Anderson, Equilibrium, JacobianFree, Picard, Status
from poise.nn import diagnose
from tests.nn.planted_cells import Cell, inputs


def test_measures_are_those_of_oracles():
    """f(z) = W z + x: the Jacobian is W, the one-step gradient of x is g where the exact one is (I - W^T)^-1 g."""
    cell = Cell(lambda linear, z, x: F.linear(z, linear.weight) + x, gain=1.0)
    with torch.no_grad():
        cell.linear.weight.copy_(torch.linalg.qr(torch.randn(12, 12)).Q @ torch.diag(torch.linspace(0.3, 0.9, 12)))
    diagnosis = diagnose(Equilibrium(cell.requires_grad_(False), Anderson(rtol=1e-5), JacobianFree()), inputs())
    weight = cell.linear.weight.double()
    radius = torch.linalg.eigvals(weight).abs().max().item()
    assert diagnosis.dynamics.radius == pytest.approx(radius, rel=1e-2)
    assert diagnosis.dynamics.contraction == pytest.approx(radius, rel=0.15)
    g = torch.randn(10, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = torch.linalg.solve(torch.eye(12) - weight.T, g.T).T
    assert diagnosis.accuracy.gradient == pytest.approx(((g - exact).norm() / exact.norm()).item(), rel=1e-3)
    solution = Equilibrium(cell, Anderson(rtol=1e-5)).solve(inputs())
    answer = torch.linalg.solve(torch.eye(12) - weight, inputs().double().T).T
    error = ((solution.state.double() - answer).norm() / answer.norm()).item()
    assert diagnosis.accuracy.state == pytest.approx(error, rel=0.1)
    assert 1e-9 < diagnosis.accuracy.floor < 1e-6
    assert diagnosis.cost.evaluations == solution.evaluations and diagnosis.cost.rows == solution.rows
    assert diagnosis.residuals[-1] <= 1e-5 < diagnosis.residuals[0] and len(diagnosis.residuals) == solution.evaluations


def test_a_rotation_beyond_one_is_expansive_and_within_it_is_not():
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    for size, healthy in ((0.9, True), (1.1, False)):
        layer = Equilibrium(Cell(lambda linear, z, x, size=size: size * z @ turn + x), Anderson(rtol=1e-5))
        diagnosis = diagnose(layer, inputs(n=2))
        assert diagnosis.healthy == healthy and diagnosis.dynamics.radius == pytest.approx(size, rel=1e-3)


def test_statuses_are_the_layers_own():
    diagnosis = diagnose(Equilibrium(Cell(gain=0.95), Picard(max_steps=8)), inputs())
    assert (diagnosis.solution.status == Status.BUDGET).all() and diagnosis.solution.state is None
    assert "at least" in diagnosis.summary() and "8 " in str(diagnosis)


def test_a_cell_that_knows_one_precision_is_compared_within_it():
    def f(linear, z, x):
        return torch.tanh(F.linear(z, linear.weight.float()) + x).float()

    diagnosis = diagnose(Equilibrium(Cell(f)), inputs())
    assert diagnosis.healthy and not diagnosis.accuracy.wider and diagnosis.accuracy.gradient < 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("where", ["caller", "cell", "dtype"])
def test_the_floor_is_that_of_the_precision_in_which_the_cell_computes(dtype, where):
    def own(linear, z, x):
        with torch.autocast("cpu", dtype, enabled=where == "cell"):
            answer = torch.tanh(linear(z) + x)
        return answer.to(z.dtype)

    layer, x = Equilibrium(Cell(own if where == "cell" else None)), inputs()
    if where == "dtype":
        layer, x = layer.to(dtype), x.to(dtype)
    with torch.autocast("cpu", dtype, enabled=where == "caller"):
        diagnosis = diagnose(layer, x)
    assert diagnosis.dtype == dtype
    name = str(dtype).removeprefix("torch.")
    assert f"asks for less than {name} gives" in diagnosis.summary() and f"in {name}; asked: 0.0001" in str(diagnosis)
    remedy = "or evaluate the cell outside autocast." if where == "caller" else "or run the cell in float32."
    assert diagnosis.summary().endswith(remedy)


def test_a_cell_that_autocast_leaves_alone_computes_in_its_own_precision():
    with torch.autocast("cpu", torch.bfloat16):
        diagnosis = diagnose(Equilibrium(Cell(lambda linear, z, x: 0.5 * torch.tanh(z) + x), Picard()), inputs())
    assert diagnosis.dtype == torch.float32 and "in float32; asked" in str(diagnosis)
