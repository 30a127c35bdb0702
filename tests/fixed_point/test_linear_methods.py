"""What each linear solver of the backward does of its own: Krylov bases, breakdowns, guesses, preconditioners."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poise import GMRES, BiCGSTAB, Dense, Neumann, Status
from tests.contracts.systems import Rows, system


def test_gmres_ends_within_n_products_and_one_pass_would_not_be_enough():
    """Krylov bases stay orthogonal in float32: an ill-conditioned system still ends after n products."""
    n = 24
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    spectrum = 1 - torch.logspace(-4, 0, n, dtype=torch.float64)
    matrix = (basis @ torch.diag(spectrum) @ basis.T).float()
    b = torch.randn(1, n, generator=generator)
    found = GMRES(rtol=1e-6, max_steps=n + 1, restart=n + 1).solve(lambda u: u @ matrix.T, b)
    residual = (b - found.fz + found.fz @ matrix.T).norm() / b.norm()
    assert found.evaluations <= n + 1 and residual < 1e-3


def test_gmres_below_the_floor_is_stalled():
    matrices, b, _ = system(2, 30, 0.99, 0, torch.float32)
    found = GMRES(rtol=1e-12, max_steps=200, restart=10).solve(lambda u: (matrices @ u.unsqueeze(2)).squeeze(2), b)
    assert (found.status == Status.STALLED).all() and (found.residual < 1e-6).all()


def test_bicgstab_does_not_break_down_where_the_first_inner_product_vanishes():
    """I - J^T a rotation by a right angle: r . A r = 0 for every r, where the plain method divides by zero."""
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()
    b = torch.tensor([[1.0, 2.0], [0.3, -4.0]]).double()
    found = BiCGSTAB(rtol=1e-10).solve(lambda u: u - u @ turn.T, b)
    assert (found.status == Status.CONVERGED).all() and torch.allclose(found.fz @ turn.T, b, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bicgstab_begins_again_after_a_breakdown(dtype):
    """Under a lower triangular I - J^T and b = e1 the shadow is orthogonal to the second residual exactly."""
    triangle = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.5, 1.0, 1.5]], dtype=dtype)
    matrices = torch.eye(3, dtype=dtype) - torch.stack([triangle, triangle.T])
    b = torch.tensor([1.0, 0.0, 0.0], dtype=dtype).expand(2, 3)
    found = BiCGSTAB(rtol=1e-5).solve(Rows(matrices), b)
    assert (found.status == Status.CONVERGED).all() and found.steps.tolist() == [6, 1]  # one spent on the residual
    expected = torch.linalg.solve(torch.stack([triangle, triangle.T]), b)
    assert torch.allclose(found.fz, expected, rtol=0, atol=1e-4)


def test_dense_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"20 x 20 numbers of each of 3 samples.*max_features=10; use GMRES"):
        Dense(max_features=10).solve(lambda u: 0 * u, torch.ones(3, 20))


def test_dense_finds_out_a_product_that_couples_its_samples():
    mixing = 0.3 * torch.ones(3, 3).double()
    found = Dense().solve(lambda u: mixing @ u, torch.randn(3, 5).double())
    assert (found.status == Status.DIVERGED).all()


def test_gmres_starts_from_a_guess_only_where_it_is_better_than_zero():
    matrices, b, expected = system(3, 40, 0.9, 6)
    start = torch.stack([expected[0], 1e6 * expected[1], torch.full((40,), float("nan")).double()])
    found = GMRES(rtol=1e-8).solve(Rows(matrices), b, start)
    cold = GMRES(rtol=1e-8).solve(Rows(matrices), b)
    assert found.steps.tolist() == [1, 1 + cold.steps[1], 1 + cold.steps[2]] and (cold.steps < 40).all()
    assert torch.allclose(found.fz, expected, rtol=0, atol=1e-6) and (found.status == Status.CONVERGED).all()


def test_a_preconditioner_that_is_the_inverse_solves_with_one_product():
    matrices, b, expected = system(3, 12, 0.95, 8)
    inverse = torch.linalg.inv(torch.eye(12).double() - matrices)
    found = GMRES(rtol=1e-10).solve(Rows(matrices), b, preconditioner=Rows(inverse))
    assert found.evaluations == 1 and torch.allclose(found.fz, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("restart", [40, 5])
@given(n=st.integers(1, 12), seed=st.integers(0, 99), selectable=st.booleans(), warm=st.booleans())
def test_any_preconditioner_leads_to_the_same_answer(restart, n, seed, selectable, warm):
    matrices, b, expected = system(4, n, 0.9, seed)
    other, start, _ = system(4, n, 0.6, seed + 1)
    preconditioner = torch.eye(n).double() + other
    product, by = Rows(matrices), Rows(preconditioner)
    if not selectable:
        by = lambda u: (preconditioner @ u.unsqueeze(2)).squeeze(2)  # noqa: E731
    solver = GMRES(rtol=1e-11, restart=restart, max_steps=400)
    found = solver.solve(product, b, start if warm else None, by)
    assert (found.status == Status.CONVERGED).all()
    assert torch.allclose(found.fz, expected, rtol=0, atol=1e-8 * expected.abs().max().item())


@pytest.mark.parametrize("terms", [1, 3, 10])
def test_neumann_is_the_partial_sum(terms):
    matrices, b, _ = system(2, 5, 0.9, 4)
    found = Neumann(terms=terms).solve(lambda u: (matrices @ u.unsqueeze(2)).squeeze(2), b)
    expected, power = b.clone(), b.clone()
    for _ in range(terms):
        power = (matrices @ power.unsqueeze(2)).squeeze(2)
        expected = expected + power
    assert torch.allclose(found.fz, expected) and found.evaluations == terms
