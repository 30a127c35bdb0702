"""The spectral radius against dense eigenvalues: complex pairs, non-normal, symmetric, nonlinear."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from poise.nn import spectral_radius
from tests.contracts.problems import PROBLEMS
from tests.nn.test_regularization import dense_jacobians, generator


def of_matrices(matrices, **options):
    """The radius of z -> M z, one matrix a sample."""
    state = torch.zeros(matrices.shape[:2], dtype=matrices.dtype)
    options = {"generator": generator(), **options}
    return spectral_radius(lambda z, m: (m @ z.unsqueeze(2)).squeeze(2), state, matrices, **options)


def exact(matrices):
    return torch.linalg.eigvals(matrices).abs().amax(dim=1)


def test_a_rotation_has_its_radius():
    """A complex pair: a power iteration with a Rayleigh quotient reports 0 here."""
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    matrices = torch.stack([0.9 * quarter, 0.5 * torch.matrix_exp(quarter)])
    found = of_matrices(matrices)
    assert torch.allclose(found.radius, torch.tensor([0.9, 0.5]), rtol=1e-5)
    assert bool(found.converged.all()) and found.products == 2


@given(seed=st.integers(0, 999), kind=st.sampled_from(["random", "symmetric", "nonnormal", "lowrank"]))
def test_whole_space_gives_the_dense_eigenvalues(seed, kind):
    matrices = torch.randn(3, 12, 12, generator=generator(seed), dtype=torch.float64)
    if kind == "symmetric":
        matrices = matrices + matrices.transpose(1, 2)
    elif kind == "nonnormal":
        matrices = matrices.triu() + 5 * matrices.triu(1)
    elif kind == "lowrank":
        matrices = matrices[:, :, :2] @ matrices[:, :2]
    found = of_matrices(matrices, rtol=0.0)
    assert torch.allclose(found.radius, exact(matrices), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_large_matrix_is_resolved_before_the_steps_are_spent(dtype):
    matrices = torch.randn(4, 200, 200, generator=generator(), dtype=torch.float64) / 200**0.5
    pair = torch.zeros(200, 200, dtype=torch.float64)
    pair[0, 1], pair[1, 0] = -1.6, 1.6
    matrices = (0.5 * matrices + pair).to(dtype)
    found = of_matrices(matrices)
    assert bool(found.converged.all()) and found.products < 40
    assert torch.allclose(found.radius.double(), exact(matrices.double()), rtol=1e-2)


def test_too_few_steps_are_said_and_lie_below_for_a_symmetric_matrix():
    basis = torch.linalg.qr(torch.randn(100, 100, generator=generator(), dtype=torch.float64)).Q
    matrix = basis @ torch.diag(torch.linspace(-1, 1, 100).double()) @ basis.T
    found = of_matrices(matrix.unsqueeze(0), steps=5)
    assert not bool(found.converged.any()) and 0.3 < found.radius.item() < 1.0 and found.products == 5
    assert "0 of 1 resolved" in repr(found)
    assert of_matrices(matrix.unsqueeze(0), steps=60).radius.item() == pytest.approx(1.0, rel=1e-2)


def test_the_residual_is_that_of_the_eigenpair():
    """Bauer and Fike: for a symmetric matrix an eigenvalue lies within the residual."""
    matrices = torch.randn(6, 50, 50, generator=generator(2), dtype=torch.float64)
    matrices = matrices + matrices.transpose(1, 2)
    found = of_matrices(matrices, steps=12, rtol=0.0)
    distances = (torch.linalg.eigvalsh(matrices).abs() - found.radius.unsqueeze(1)).abs().amin(dim=1)
    assert bool((distances <= found.residual * found.radius * (1 + 1e-9)).all())
    assert bool((found.residual > 1e-9).any())


@pytest.mark.parametrize("name", PROBLEMS)
def test_cells_of_every_kind(name):
    case = PROBLEMS[name]()
    z = case.solution()
    found = spectral_radius(case.f, z, case.x, steps=200, rtol=1e-8, generator=generator())
    expected = exact(dense_jacobians(case.f, z, case.x).detach())
    assert torch.allclose(found.radius, expected, rtol=1e-4)


def test_samples_do_not_depend_on_each_other_and_a_bad_one_stays_alone():
    matrices = 0.5 * torch.randn(3, 6, 6, generator=generator(), dtype=torch.float64)
    matrices[1] = float("nan")
    found = of_matrices(matrices, rtol=0.0)
    assert found.radius.isnan().tolist() == [False, True, False]
    assert torch.allclose(found.radius[[0, 2]], exact(matrices[[0, 2]]), rtol=1e-6)


def test_zero_nilpotent_and_empty():
    found = of_matrices(torch.stack([torch.zeros(3, 3), torch.eye(3)]))
    assert found.radius.tolist() == pytest.approx([0.0, 1.0]) and bool(found.converged.all())
    assert of_matrices(torch.zeros(0, 3, 3)).radius.shape == (0,)
    assert spectral_radius(lambda z, x: x, torch.zeros(2, 3), torch.ones(2, 3)).radius.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="steps=0"):
        of_matrices(torch.zeros(1, 3, 3), steps=0)


def test_complex_states_and_masks():
    factor = torch.tensor([[0.3 + 0.4j], [0.0 - 0.8j]])
    found = spectral_radius(lambda z, c: c * z, torch.zeros(2, 3, dtype=torch.complex64), factor, generator=generator())
    assert torch.allclose(found.radius, torch.tensor([0.5, 0.8]), rtol=1e-4)
    scale = torch.tensor([[0.2, 0.5, 3.0]])
    valid = torch.tensor([[True, True, False]])
    found = spectral_radius(lambda z, s: s * z, torch.zeros(1, 3), scale, valid=valid, generator=generator())
    assert found.radius.item() == pytest.approx(0.5, rel=1e-3)


def test_nothing_is_left_changed():
    cell = nn.Linear(4, 4)
    z = torch.randn(2, 4, requires_grad=True)
    x = torch.randn(2, 4)
    state = torch.random.get_rng_state()
    found = spectral_radius(lambda z, x: torch.tanh(cell(z) + x), z, x, generator=generator())
    assert torch.equal(state, torch.random.get_rng_state())
    assert z.grad is None and z.requires_grad and not x.requires_grad and cell.weight.grad is None
    assert not found.radius.requires_grad and not found.residual.requires_grad
