"""What every linear solver of the backward promises. A new one is tested by adding a line to LINEAR."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import poise
from poise import GMRES, Anderson, BiCGSTAB, Broyden, Dense, Neumann, Picard, Status
from poise.fixed_point.linear import as_linear

LINEAR = {
    "gmres": GMRES(rtol=1e-11),
    "gmres_restarted": GMRES(rtol=1e-11, restart=6, max_steps=400),
    "bicgstab": BiCGSTAB(rtol=1e-11, max_steps=400),
    "dense": Dense(rtol=1e-11),
    "picard": Picard(rtol=1e-11, max_steps=500),
    "anderson": Anderson(rtol=1e-11, max_steps=500),
    "anderson_type2": Anderson(rtol=1e-11, form="type2", max_steps=500),
    "broyden": Broyden(rtol=1e-11, max_steps=500),
    "neumann": Neumann(terms=400),
}


def system(batch, n, contraction, seed, dtype=torch.float64):
    """A map of spectral radius below one with complex eigenvalues, and a right-hand side, for every sample."""
    generator = torch.Generator().manual_seed(seed)
    matrices = torch.randn(batch, n, n, generator=generator, dtype=torch.float64)
    matrices = contraction * matrices / torch.linalg.matrix_norm(matrices, 2).reshape(-1, 1, 1)
    b = torch.randn(batch, n, generator=generator, dtype=torch.float64)
    return matrices.to(dtype), b.to(dtype), torch.linalg.solve(torch.eye(n).double() - matrices, b)


@pytest.mark.parametrize("name", LINEAR)
@given(batch=st.integers(1, 4), n=st.integers(1, 12), contraction=st.floats(0, 0.9), seed=st.integers(0, 99))
def test_solves_what_a_dense_solve_solves(name, batch, n, contraction, seed):
    matrices, b, expected = system(batch, n, contraction, seed)
    found = as_linear(LINEAR[name]).solve(lambda u: (matrices @ u.unsqueeze(2)).squeeze(2), b)
    assert torch.allclose(found.fz, expected, rtol=0, atol=1e-8 * expected.abs().max().item())
    if name != "neumann":
        assert (found.status == Status.CONVERGED).all()


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_tolerance_is_relative_to_the_right_hand_side(name, scale):
    matrices, b, expected = system(3, 8, 0.8, 0)
    found = as_linear(LINEAR[name]).solve(lambda u: (matrices @ u.unsqueeze(2)).squeeze(2), scale * b)
    assert torch.allclose(found.fz / scale, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", [name for name in LINEAR if name != "neumann"])
def test_samples_do_not_depend_on_each_other(name):
    matrices, b, _ = system(5, 10, 0.9, 1)
    batch = as_linear(LINEAR[name]).solve(lambda u: (matrices @ u.unsqueeze(2)).squeeze(2), b)
    for i in range(5):
        alone = as_linear(LINEAR[name]).solve(
            lambda u, i=i: (matrices[i : i + 1] @ u.unsqueeze(2)).squeeze(2), b[i : i + 1]
        )
        assert alone.steps[0] == batch.steps[i]
        assert torch.allclose(alone.fz[0], batch.fz[i], rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", [name for name in LINEAR if name != "neumann"])
def test_a_product_that_is_not_finite_stays_with_its_sample(name):
    matrices, b, expected = system(3, 6, 0.7, 2)
    matrices[1] = float("nan")
    found = as_linear(LINEAR[name]).solve(lambda u: (matrices @ u.unsqueeze(2)).squeeze(2), b)
    assert found.status.tolist() == [Status.CONVERGED, Status.NONFINITE, Status.CONVERGED]
    assert torch.allclose(found.fz[[0, 2]], expected[[0, 2]], rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", [name for name in LINEAR if name != "neumann"])
def test_a_zero_right_hand_side_is_solved_by_zero(name):
    matrices, b, _ = system(2, 6, 0.7, 3)
    b[0] = 0
    found = as_linear(LINEAR[name]).solve(lambda u: (matrices @ u.unsqueeze(2)).squeeze(2), b)
    assert (found.fz[0] == 0).all() and found.residual[0] == 0


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


@pytest.mark.parametrize("terms", [1, 3, 10])
def test_neumann_is_the_partial_sum(terms):
    matrices, b, _ = system(2, 5, 0.9, 4)
    found = Neumann(terms=terms).solve(lambda u: (matrices @ u.unsqueeze(2)).squeeze(2), b)
    expected, power = b.clone(), b.clone()
    for _ in range(terms):
        power = (matrices @ power.unsqueeze(2)).squeeze(2)
        expected = expected + power
    assert torch.allclose(found.fz, expected) and found.evaluations == terms


@pytest.mark.parametrize("name", LINEAR)
def test_is_a_value(name):
    assert pickle.loads(pickle.dumps(LINEAR[name])) == LINEAR[name]
    assert hash(poise.Implicit(solver=LINEAR[name])) == hash(poise.Implicit(solver=LINEAR[name]))


@pytest.mark.parametrize("make", [lambda: GMRES(rtol=-1), lambda: GMRES(max_steps=0), lambda: Neumann(terms=0)])
def test_refuses_options_that_mean_nothing(make):
    with pytest.raises(ValueError, match="pass"):
        make()


def test_the_prefix_scope_has_no_place_in_the_backward():
    with pytest.raises(ValueError, match="scope='prefix'.*scope='sample'"):
        poise.Implicit(solver=Anderson(scope="prefix"))
    with pytest.raises(TypeError, match="cannot solve the backward"):
        poise.Implicit(solver="gmres")
