"""What a review found: each test fails without its remedy."""

import pytest
import torch

import poise
from poise import Anderson, Broyden, NewtonKrylov, Picard, Status


@pytest.mark.parametrize("damping", [1.0, 0.5])
def test_float32_samples_at_odd_rows_take_the_same_steps_alone(damping):
    """Kernels for odd small systems round by alignment, which follows the row."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 6, generator=generator)
    weight = 0.95 * weight / torch.linalg.matrix_norm(weight, 2)
    x = torch.randn(9, 6, generator=generator)
    f = lambda z, x: torch.tanh((z.unsqueeze(1) * weight).sum(2) + x)  # noqa: E731 - rounds alike for every batch
    solver = Anderson(rtol=1e-6, damping=damping, max_steps=200)
    batch = poise.fixed_point(f, torch.zeros_like(x), x, solver=solver, check=False)
    for i in range(9):
        alone = poise.fixed_point(f, torch.zeros(1, 6), x[i : i + 1], solver=solver, check=False)
        assert alone.steps[0] == batch.steps[i] and torch.equal(alone.state[0], batch.state[i])


def test_a_stall_is_counted_by_each_sample():
    rates = torch.tensor([[0.97], [0.2]])
    solver = Picard(rtol=0.0, max_steps=3000)
    both = poise.fixed_point(lambda z: rates * z + 1, torch.zeros(2, 1), solver=solver, on_failure="ignore")
    alone = poise.fixed_point(lambda z: rates[:1] * z + 1, torch.zeros(1, 1), solver=solver, on_failure="ignore")
    assert both.steps[0] == alone.steps[0] and torch.equal(both.state[:1], alone.state)


@pytest.mark.parametrize("solver", [Picard(), Anderson(), Broyden(), Broyden(line_search=True)])
def test_not_a_number_in_the_padding_does_not_count(solver):
    valid = torch.tensor([[True, True, False]])
    f = lambda z, x: torch.where(valid, 0.5 * z + x, float("nan"))  # noqa: E731
    solution = poise.fixed_point(f, torch.zeros(1, 3), torch.ones(1, 3), solver=solver, valid=valid, check=False)
    assert (solution.status == Status.CONVERGED).all()
    assert torch.allclose(solution.state[:, :2], torch.full((1, 2), 2.0), rtol=1e-3)


@pytest.mark.parametrize("solver", [Picard(), Anderson(), NewtonKrylov()])
def test_a_cell_that_writes_into_its_state_is_refused(solver):
    with pytest.raises(ValueError, match="wrote into the state"), torch.no_grad():
        poise.fixed_point(lambda z, x: z.mul_(0.5).add_(x), torch.zeros(2, 3), torch.ones(2, 3), solver=solver)


def test_a_callback_cannot_disturb_the_solve():
    def spoil(step):
        step.state.zero_()
        step.residual.zero_()

    f, z0, x = (lambda z, x: 0.5 * z + x), torch.zeros(2, 3), torch.ones(2, 3)
    assert torch.equal(poise.fixed_point(f, z0, x, callback=spoil).state, poise.fixed_point(f, z0, x).state)


@pytest.mark.parametrize("options", [{"rtol": True}, {"max_steps": True}])
def test_booleans_are_no_numbers(options):
    with pytest.raises(TypeError, match="is of type bool; pass a"):
        Anderson(**options)


def test_a_lost_sample_is_not_given_to_an_external_finder():
    x = torch.ones(2, 3)
    x[1] = float("nan")
    asked = []

    def find(g, z):
        asked.append(bool(z.isfinite().all()))
        return torch.full_like(z, 2.0)

    solution = poise.fixed_point(
        lambda z, x: 0.5 * z + x, torch.zeros(2, 3), x, solver=poise.External(find), on_failure="ignore", check=False
    )
    assert solution.status.tolist() == [Status.CONVERGED, Status.NONFINITE] and len(asked) == 1


def test_a_layer_needs_a_module():
    with pytest.raises(TypeError, match="cell=.* is no Module; pass a value such as poise.nn.inject"):
        poise.Equilibrium(lambda z, c: z)
