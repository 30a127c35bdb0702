"""The Jacobian penalty against the dense Jacobian, the losses of training against their formulas."""

import pytest
import torch
import torch.nn.functional as F

import poise
from poise import Anderson, Equilibrium, Implicit, Picard
from poise.fixed_point import GMRES
from poise.nn import jacobian_penalty, jittered, trajectory_correction
from tests.contracts.problems import PROBLEMS, flatten, unflatten


def dense_jacobians(f, z, x):
    """J of each sample alone, (batch, n, n), differentiable in everything."""
    rows = []
    for i in range(len(x)):
        one = tuple(part[i : i + 1] for part in z) if isinstance(z, tuple) else z[i : i + 1]

        def alone(vector, i=i, one=one):
            return flatten(f(unflatten(vector.unsqueeze(0), one), x[i : i + 1])).squeeze(0)

        rows.append(torch.autograd.functional.jacobian(alone, flatten(one).squeeze(0), create_graph=True))
    return torch.stack(rows)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_penalty_and_its_gradient_are_the_dense_ones_in_the_mean(name):
    case = PROBLEMS[name]()
    z = case.solution()
    jacobians = dense_jacobians(case.f, z, case.x)
    d = jacobians.shape[1]
    exact = jacobians.square().sum(dim=(1, 2)).mean() / d
    expected = torch.autograd.grad(exact, case.parameters)
    draws = 600
    found = jacobian_penalty(case.f, z, case.x, draws=draws, generator=generator())
    assert abs(found.item() / exact.item() - 1) < 0.12
    gradients = torch.autograd.grad(found, case.parameters)
    for a, b in zip(gradients, expected, strict=True):
        assert (a - b).norm() < 0.25 * b.norm()


def test_one_draw_is_the_vector_jacobian_product():
    case = PROBLEMS["dense"]()
    z = case.solution()
    noise = torch.randn(4, 1, 6, generator=generator(3), dtype=torch.float64)
    expected = (noise @ dense_jacobians(case.f, z, case.x)).square().sum() / (4 * 6)
    found = jacobian_penalty(case.f, z, case.x, generator=generator(3))
    assert torch.allclose(found, expected, rtol=1e-12)
    with torch.no_grad():
        measured = jacobian_penalty(case.f, z, case.x, generator=generator(3))
    assert torch.equal(measured, found) and not measured.requires_grad


def test_entries_outside_the_mask_do_not_count():
    case = PROBLEMS["dense"]()
    z = case.solution()
    valid = torch.tensor([[True] * 4 + [False] * 2, [True] * 6, [False] * 6, [True] * 6])
    noise = torch.randn(4, 1, 6, generator=generator(3), dtype=torch.float64)
    inside = valid.double()
    jacobians = dense_jacobians(case.f, z, case.x) * inside.unsqueeze(2) * inside.unsqueeze(1)
    squares = (noise @ jacobians).square().sum(dim=(1, 2)) / inside.sum(dim=1).clamp_min(1)
    found = jacobian_penalty(case.f, z, case.x, generator=generator(3), valid=valid)
    assert torch.allclose(found, squares.mean(), rtol=1e-12)


def test_an_attached_state_passes_the_gradient_and_a_detached_one_is_a_constant():
    case = PROBLEMS["dense"]()
    (weight,) = case.parameters

    def penalty(state):
        return jacobian_penalty(case.f, state, case.x, generator=generator(1))

    exact = {"solver": Anderson(rtol=1e-13), "adjoint": Implicit(GMRES(rtol=1e-13))}
    solution = poise.fixed_point(case.f, case.z0, case.x, **exact)
    (through,) = torch.autograd.grad(penalty(solution.state), weight)
    (constant,) = torch.autograd.grad(penalty(solution.state.detach()), weight)
    z = case.z0
    for _ in range(150):
        z = case.f(z, case.x)
    (expected,) = torch.autograd.grad(penalty(z), weight)
    assert torch.allclose(through, expected, atol=1e-9)
    assert (constant - expected).norm() > 1e-2 * expected.norm()


def test_a_cell_that_ignores_its_state_and_an_empty_batch_have_no_penalty():
    x = torch.randn(3, 2, requires_grad=True)
    assert jacobian_penalty(lambda z, x: torch.sin(x), torch.zeros(3, 2), x) == 0
    assert jacobian_penalty(lambda z, x: z * x, torch.zeros(0, 2), torch.zeros(0, 2)) == 0
    with pytest.raises(ValueError, match="draws=0"):
        jacobian_penalty(lambda z, x: z * x, torch.zeros(3, 2), x, draws=0)


def test_fused_attention_has_a_second_derivative_here():
    qkv = torch.randn(24, 8, generator=generator()).mul(0.3).requires_grad_()

    def f(z, x):
        q, k, v = (z @ qkv.T).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2) + x

    z = torch.randn(2, 3, 8, generator=generator(1))
    (found,) = torch.autograd.grad(jacobian_penalty(f, z, z, generator=generator(2)), qkv)
    step = 1e-3 * torch.randn(24, 8, generator=generator(4))
    values = []
    for sign in (1, -1):
        qkv.data.add_(step, alpha=sign)
        values.append(jacobian_penalty(f, z, z, generator=generator(2)).item())
        qkv.data.add_(step, alpha=-sign)
    assert abs((found * step).sum().item() - (values[0] - values[1]) / 2) < 2e-2 * abs(values[0] - values[1])


def test_trajectory_correction_is_its_formula():
    a, b, c = (torch.randn(2, 3, requires_grad=True) for _ in range(3))
    found = trajectory_correction(lambda z: z.square().mean(), [a, b, c], gamma=0.5)
    assert torch.allclose(found, 0.25 * a.square().mean() + 0.5 * b.square().mean() + c.square().mean())
    gradients = torch.autograd.grad(found, [a, b, c])
    assert torch.allclose(gradients[0], 0.25 * a / 3) and torch.allclose(gradients[2], c / 3)
    with pytest.raises(ValueError, match="given no state"):
        trajectory_correction(lambda z: z.sum(), [])
    with pytest.raises(ValueError, match=r"gamma=1.5"):
        trajectory_correction(lambda z: z.sum(), [a], gamma=1.5)


def test_a_jittered_budget_is_uniform_around_its_own_and_changes_nothing_else():
    solver = Picard(rtol=None, max_steps=5, damping=0.5)
    source = generator()
    drawn = [jittered(solver, 2, source) for _ in range(200)]
    assert {one.max_steps for one in drawn} == {3, 4, 5, 6, 7} and {one.damping for one in drawn} == {0.5}
    counts = [sum(one.max_steps == steps for one in drawn) for steps in range(3, 8)]
    assert min(counts) > 20  # of 40 expected
    assert jittered(solver, 0) == solver
    again = generator()
    assert [jittered(solver, 2, again).max_steps for _ in range(200)] == [one.max_steps for one in drawn]
    with pytest.raises(ValueError, match=r"delta=5.*max_steps=5"):
        jittered(solver, 5)


def test_the_penalty_makes_a_layer_contract_more():
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 8)
    torch.nn.init.orthogonal_(linear.weight, gain=0.95)

    class Cell(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear

        def forward(self, z, x):
            return torch.tanh(self.linear(z) + x)

    layer = Equilibrium(Cell(), Anderson(rtol=1e-5))
    x, source = 0.3 * torch.randn(16, 8), generator()
    before = layer.solve(x).evaluations
    optimiser = torch.optim.SGD(layer.parameters(), lr=1.0)
    for _ in range(20):
        optimiser.zero_grad()
        solution = layer.solve(x)
        jacobian_penalty(layer.cell, solution.state.detach(), x, generator=source).backward()
        optimiser.step()
    assert layer.solve(x).evaluations < 0.7 * before
