"""What every linear solver of the backward promises. A new one is tested by adding a line to LINEAR."""

import dataclasses
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import poise
from poise import GMRES, Anderson, BiCGSTAB, Broyden, Dense, Neumann, Picard, Status
from poise.fixed_point.linear import Product, as_linear

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


ITERATIVE = [name for name in LINEAR if name not in ("neumann", "dense")]


class Rows(Product):
    """u -> J^T u by dense matrices, rows of which can be left out."""

    selectable = True

    def __init__(self, matrices, count=None):
        super().__init__()
        self.matrices, self.count = matrices, count or self.count

    def __call__(self, u):
        assert len(u) == len(self.matrices)
        self.count.evaluations += 1
        self.count.rows += len(u)
        return (self.matrices @ u.unsqueeze(2)).squeeze(2)

    def select(self, index):
        return Rows(self.matrices[index], self.count)


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


def mixed_system(dtype=torch.float64):
    """Samples of which half end early, a quarter later, and so on."""
    contractions = torch.tensor([0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99]).double()
    matrices, b, _ = system(len(contractions), 24, 1.0, 5)
    matrices = contractions.reshape(-1, 1, 1) * matrices
    expected = torch.linalg.solve(torch.eye(24).double() - matrices, b)
    return matrices.to(dtype), b.to(dtype), expected


@pytest.mark.parametrize("name", ITERATIVE)
def test_finished_samples_leave_a_selectable_product(name):
    matrices, b, expected = mixed_system()
    solver = as_linear(LINEAR[name])
    whole = solver.solve(lambda u: (matrices @ u.unsqueeze(2)).squeeze(2), b)
    found = solver.solve(Rows(matrices), b)
    assert (found.status == Status.CONVERGED).all() and torch.equal(found.steps, whole.steps)
    assert torch.allclose(found.fz, whole.fz, rtol=0, atol=1e-12 * expected.abs().max().item())
    assert torch.allclose(found.fz, expected, rtol=0, atol=1e-8 * expected.abs().max().item())
    assert found.steps.sum() <= found.rows < 0.9 * whole.rows and whole.rows == 8 * whole.evaluations
    trace = found.solution(None).trace
    assert trace.shape == (found.evaluations, 8)
    for sample in range(8):  # what a sample's column holds is what it was told at its own steps
        known = trace[:, sample][~trace[:, sample].isnan()]
        assert len(known) >= found.steps[sample] and known[-1] <= 1e-11


@pytest.mark.parametrize("name", ["gmres", "gmres_restarted", "bicgstab"])
@given(
    batch=st.integers(2, 12),
    n=st.integers(1, 24),
    seed=st.integers(0, 999),
    spoiled=st.sampled_from(["nan product", "nan", "zero", "singular", "huge"]),
    max_steps=st.sampled_from([3, 10, 200]),
)
def test_a_sample_is_its_own_whatever_its_neighbours_are(name, batch, n, seed, spoiled, max_steps):
    matrices, b, _ = system(batch, n, 0.95, seed)
    matrices = matrices * torch.linspace(0.1, 1, batch).reshape(-1, 1, 1)
    if spoiled == "nan product":
        matrices[0] = float("nan")
    elif spoiled == "singular":
        matrices[0] = torch.eye(n)
    else:
        b[0] = {"nan": float("nan"), "zero": 0.0, "huge": 1e300}[spoiled]
    solver = dataclasses.replace(LINEAR[name], rtol=1e-6, max_steps=max_steps)
    together = solver.solve(Rows(matrices), b)
    for sample in {0, 1, batch - 1}:
        index = torch.tensor([sample])
        alone = solver.solve(Rows(matrices[index]), b[index])
        assert alone.steps[0] == together.steps[sample] <= max_steps and alone.status[0] == together.status[sample]
        assert torch.allclose(alone.fz[0], together.fz[sample], rtol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", ["gmres", "gmres_restarted", "bicgstab"])
def test_a_sample_whose_residual_is_in_doubt_has_its_own_answer_too(name):
    """Four samples end at once with a u so large that float32 has to look again, for one of them in vain."""
    diagonal = torch.linspace(-0.8, 0.8, 24).repeat(8, 1)
    diagonal[:4] = torch.tensor([0.97, 0.98, 0.999, 0.9999]).unsqueeze(1) * torch.eye(24)[0]
    b = torch.randn(8, 24, generator=torch.Generator().manual_seed(0))
    b[:2] = torch.eye(24)[0]
    matrices = torch.diag_embed(diagonal)
    solver = dataclasses.replace(LINEAR[name], rtol=1e-5)
    together = solver.solve(Rows(matrices), b)
    assert (together.steps[:2] == 2).all() and together.steps[3] > 3
    for sample in range(8):
        index = torch.tensor([sample])
        alone = solver.solve(Rows(matrices[index]), b[index])
        assert alone.steps[0] == together.steps[sample] and alone.status[0] == together.status[sample]
        assert torch.allclose(alone.fz[0], together.fz[sample], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gmres", "gmres_restarted", "bicgstab"])
@given(
    batch=st.integers(1, 3),
    n=st.integers(1, 40),
    contraction=st.floats(0, 1.1).filter(lambda c: abs(c - 1) > 1e-3),  # at 1 a system of one number is singular
    seed=st.integers(0, 999),
)
def test_krylov_methods_claim_no_more_than_is_so(name, batch, n, contraction, seed):
    """The residual reported, in float32, is that of the answer up to a few units of rounding of it."""
    matrices, b, _ = system(batch, n, contraction, seed, torch.float32)
    solver = dataclasses.replace(LINEAR[name], rtol=1e-5, max_steps=60)
    found = solver.solve(lambda u: (matrices @ u.unsqueeze(2)).squeeze(2), b)
    u = found.fz.double().unsqueeze(2)
    residual = (b.double().unsqueeze(2) - u + matrices.double() @ u).norm(dim=(1, 2)) / b.norm(dim=1)
    rounding = 1e-6 * u.norm(dim=(1, 2)) / b.norm(dim=1)
    assert (residual <= 1.1 * found.residual + rounding).all()
    assert (residual <= 1.1e-5 + rounding)[found.status == Status.CONVERGED].all()


@pytest.mark.parametrize("solver", [GMRES(rtol=1e-9, restart=60), BiCGSTAB(rtol=1e-9)])
def test_an_estimate_below_the_floor_is_not_believed(solver):
    """The residual that is carried along falls to 1e-9, that of a float32 answer cannot."""
    matrices, b, _ = system(4, 40, 0.9, 11, torch.float32)
    found = solver.solve(Rows(matrices), b)
    assert (found.status == Status.STALLED).all() and (found.residual < 1e-6).all()


@pytest.mark.parametrize("name", ["gmres", "bicgstab"])
def test_a_budget_is_spent_to_the_product(name):
    matrices, b, _ = system(3, 30, 0.999, 7)
    for budget in (1, 2, 5):
        found = dataclasses.replace(LINEAR[name], max_steps=budget).solve(Rows(matrices), b)
        assert found.evaluations == budget and (found.steps == budget).all() and (found.status == Status.BUDGET).all()
        fixed = dataclasses.replace(LINEAR[name], max_steps=budget, rtol=None).solve(Rows(matrices), b)
        assert fixed.evaluations == budget and torch.allclose(fixed.fz, found.fz)


@pytest.mark.parametrize("name", ["gmres", "bicgstab", "dense"])
def test_a_singular_system_is_not_called_solved(name):
    """J = 1 in one sample: no u has a residual below that of zero."""
    matrices = torch.stack([torch.eye(4), 0.5 * torch.eye(4)]).double()
    b = torch.ones(2, 4).double()
    found = LINEAR[name].solve(Rows(matrices), b)
    assert found.status[0] in (Status.BUDGET, Status.DIVERGED) and found.status[1] == Status.CONVERGED
    assert found.fz.isfinite().all() and found.residual[0] == pytest.approx(1.0)
    assert torch.allclose(found.fz[1], 2 * b[1])


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


@pytest.mark.parametrize("name", LINEAR)
def test_is_a_value(name):
    assert pickle.loads(pickle.dumps(LINEAR[name])) == LINEAR[name]
    assert hash(poise.Implicit(solver=LINEAR[name])) == hash(poise.Implicit(solver=LINEAR[name]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: GMRES(rtol=-1),
        lambda: GMRES(max_steps=0),
        lambda: GMRES(restart=0),
        lambda: BiCGSTAB(rtol=-1),
        lambda: BiCGSTAB(max_steps=0),
        lambda: Dense(rtol=-1),
        lambda: Dense(max_features=0),
        lambda: Neumann(terms=0),
    ],
)
def test_refuses_options_that_mean_nothing(make):
    with pytest.raises(ValueError, match="pass"):
        make()


def test_the_prefix_scope_has_no_place_in_the_backward():
    with pytest.raises(ValueError, match="scope='prefix'.*scope='sample'"):
        poise.Implicit(solver=Anderson(scope="prefix"))
    with pytest.raises(TypeError, match="cannot solve the backward"):
        poise.Implicit(solver="gmres")
