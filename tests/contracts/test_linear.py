"""What every linear solver of the backward promises. A new one is tested by adding a line to LINEAR."""

import dataclasses
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import poise
from poise import GMRES, Anderson, BiCGSTAB, Broyden, Dense, Neumann, Picard, Status
from poise.fixed_point.linear import as_linear
from tests.contracts.systems import Rows, system

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
