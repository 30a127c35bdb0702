"""Where a solve starts: an earlier solution, or what a learned initialiser proposes."""

import pytest
import torch
from torch import nn

import poise
from poise import GMRES, Anderson, Equilibrium, Implicit, Picard
from poise.nn import initialization_loss, jacobian_penalty
from tests.nn.test_equilibrium import EXACT, Cell, assert_close, inputs, unrolled


def with_initializer(**options):
    cell = Cell()
    torch.manual_seed(1)
    return Equilibrium(cell, **{**EXACT, **options}, initializer=nn.Linear(5, 5).double())


def test_an_earlier_solution_is_a_start():
    layer = Equilibrium(Cell(), Picard(rtol=1e-8, max_steps=200))
    first = layer.solve(inputs())
    again = layer.solve(inputs(), first)
    assert again.evaluations == 1 < first.evaluations and not again.start.requires_grad
    near = layer.solve(inputs() + 1e-3, first)
    assert near.evaluations < 0.8 * layer.solve(inputs() + 1e-3).evaluations
    assert torch.allclose(layer(inputs() + 1e-3, first), layer(inputs() + 1e-3), atol=1e-6)


def test_an_earlier_solution_of_tuples_and_the_function():
    def f(z, x):
        return 0.5 * z[0] + x, 0.1 * z[1] + z[0][:, :2]

    x = torch.rand(3, 4)
    first = poise.fixed_point(f, (torch.zeros(3, 4), torch.zeros(3, 2)), x, solver=Anderson(rtol=1e-6))
    assert poise.fixed_point(f, first, x, solver=Anderson(rtol=1e-5)).evaluations == 1
    with pytest.raises(ValueError, match=r"context has shape \(2, 4\) but the earlier solution holds 3 samples; start"):
        poise.fixed_point(f, first, x[:2])


def test_a_solution_holds_its_start_and_context():
    layer = Equilibrium(Cell(), **EXACT)
    x, z0 = inputs(), torch.ones(4, 5).double()
    solution = layer.solve(x, z0)
    assert solution.start is z0 and torch.equal(solution.context, layer.cell.inject(x))
    found = jacobian_penalty(layer.cell, solution.state, solution.context, generator=torch.Generator().manual_seed(0))
    found.backward()
    assert layer.cell.u.weight.grad.abs().max() > 0  # through the context that the solve injected


def test_the_main_loss_leaves_the_initialiser_alone_and_its_loss_the_cell():
    layer = with_initializer()
    expected = unrolled(Equilibrium(layer.cell))
    solution = layer.solve(inputs())
    solution.state.square().sum().backward(retain_graph=True)
    assert all(p.grad is None for p in layer.initializer.parameters())
    found = [p.grad.clone() for p in layer.cell.parameters()]
    assert_close(found, expected)
    initialization_loss(solution).backward()
    assert all(p.grad.abs().max() > 0 for p in layer.initializer.parameters())
    assert_close([p.grad for p in layer.cell.parameters()], found, 0)


def test_the_initialisation_loss_is_its_formula():
    layer = with_initializer()
    solution = layer.solve(inputs())
    start, state = solution.start, solution.state.detach()
    assert torch.equal(start, layer.initializer(layer.cell.inject(inputs())))
    expected = ((start - state).norm(dim=1) / state.norm(dim=1)).square().mean()
    assert torch.allclose(initialization_loss(solution), expected, rtol=1e-10)
    pair = poise.fixed_point(
        lambda z, x: (0.5 * z[0] + x, 0.5 * z[1] + 1), (torch.zeros(2, 3), torch.ones(2)), torch.ones(2, 3)
    )
    parts = [1.0, 0.25]  # |0 - 2|^2 / |2|^2 and |1 - 2|^2 / |2|^2
    with torch.no_grad():  # which asks for no gradient
        found = initialization_loss(pair)
    assert found.item() == pytest.approx(sum(parts) / 2, rel=1e-3)


def test_an_initialisation_loss_that_would_train_nothing_is_refused():
    layer = Equilibrium(Cell())
    with pytest.raises(ValueError, match=r"trains nothing; give the Equilibrium an initializer .*no_grad\(\)\.$"):
        initialization_loss(layer.solve(inputs()))
    layer = with_initializer()
    with pytest.raises(ValueError, match="pass no z0"):
        initialization_loss(layer.solve(inputs(), layer.solve(inputs())))


def test_a_sample_without_a_solution_does_not_train_the_initialiser():
    layer = with_initializer(on_failure="ignore")
    step = layer.cell.forward
    layer.cell.forward = lambda z, context: torch.where(context[:, :1] == bad, float("nan"), step(z, context))
    bad = layer.cell.inject(inputs())[1, 0]
    solution = layer.solve(inputs())
    assert solution.counts() == {"CONVERGED": 3, "NONFINITE": 1}
    loss = initialization_loss(solution)
    start, state = solution.start.detach()[[0, 2, 3]], solution.state.detach()[[0, 2, 3]]
    assert torch.allclose(loss, ((start - state).norm(dim=1) / state.norm(dim=1)).square().mean(), rtol=1e-8)
    found = torch.autograd.grad(loss, list(layer.initializer.parameters()))
    clean = with_initializer()
    expected = torch.autograd.grad(
        initialization_loss(clean.solve(inputs()[[0, 2, 3]])), list(clean.initializer.parameters())
    )
    assert_close(found, expected)


def test_a_trained_initialiser_saves_evaluations_and_changes_no_answer():
    layer = with_initializer(solver=Picard(rtol=1e-4, max_steps=200), adjoint=Implicit(GMRES(rtol=1e-6)))
    source = torch.Generator().manual_seed(2)
    validation = 0.2 * torch.randn(32, 5, generator=source, dtype=torch.float64)
    before = layer.solve(validation)
    optimiser = torch.optim.Adam(layer.initializer.parameters(), lr=0.05)
    for _ in range(100):
        x = 0.2 * torch.randn(32, 5, generator=source, dtype=torch.float64)
        optimiser.zero_grad()
        initialization_loss(layer.solve(x)).backward()
        optimiser.step()
    after = layer.solve(validation)
    plain = Equilibrium(layer.cell, Picard(rtol=1e-4, max_steps=200)).solve(validation)
    assert after.rows < 0.7 * before.rows and after.rows < 0.7 * plain.rows
    assert torch.allclose(after.state, plain.state, atol=1e-3)
