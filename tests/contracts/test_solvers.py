"""What every fixed-point solver promises. A new one is tested by adding a line to SOLVERS."""

import pickle
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import root

import poise
from poise import Anderson, Broyden, External, NewtonKrylov, Picard, Status
from tests.contracts.problems import PROBLEMS, dense, flatten, linear


def scipy_root(g, z):
    return root(g, z.numpy(), method="krylov", options={"fatol": 1e-12, "maxiter": 60}).x


SOLVERS = {
    "picard": Picard(),
    "picard_damped": Picard(damping=0.7),
    "anderson_type1": Anderson(),
    "anderson_type2": Anderson(form="type2", history=5),
    "anderson_damped": Anderson(damping=0.8),
    "anderson_short": Anderson(history=2),
    "broyden": Broyden(),
    "broyden_wrapped": Broyden(history=4),
    "broyden_short_steps": Broyden(step_length=0.7),
    "broyden_line_search": Broyden(line_search=True),
    "newton_krylov": NewtonKrylov(),
    "external": External(scipy_root),
}
ITERATIVE = [name for name in SOLVERS if name != "external"]


def with_options(name, **options):
    import dataclasses

    return dataclasses.replace(SOLVERS[name], **options)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", SOLVERS)
def test_finds_the_fixed_point(name, problem):
    case = PROBLEMS[problem]()
    solution = poise.fixed_point(case.f, case.z0, case.x, solver=with_options(name, rtol=1e-11, max_steps=200))
    assert solution.ok and (solution.status == Status.CONVERGED).all()
    assert torch.allclose(flatten(solution.state), flatten(case.solution()), rtol=0, atol=1e-9)
    assert isinstance(solution.state, tuple) == isinstance(case.z0, tuple)


@pytest.mark.parametrize("name", ITERATIVE)
@given(contraction=st.floats(0.0, 0.95), batch=st.integers(1, 5), n=st.integers(1, 9), start=st.floats(-3, 3))
def test_solves_linear_maps_of_any_size(name, contraction, batch, n, start):
    case = linear(torch.linspace(0, contraction, batch), n=n, seed=n)
    z0 = torch.full_like(case.z0, start)
    solution = poise.fixed_point(case.f, z0, case.x, solver=with_options(name, rtol=1e-10, max_steps=500))
    assert solution.ok
    image = case.f(solution.state, case.x)
    residual = (image - solution.state).norm(dim=1)
    assert (residual <= 1.1 * 1e-10 * image.norm(dim=1) + 1e-300).all() or contraction == 0


@pytest.mark.parametrize("name", ITERATIVE)
@given(seed=st.integers(0, 1000))
def test_sample_alone_in_a_batch_and_shuffled(name, seed):
    generator = torch.Generator().manual_seed(seed)
    contractions = torch.rand(6, generator=generator) * 0.9
    case = linear(contractions, seed=seed)
    order = torch.randperm(6, generator=generator)
    solver = with_options(name, rtol=1e-8, max_steps=400)
    batch = poise.fixed_point(case.f, case.z0, case.x, solver=solver)
    shuffled = poise.fixed_point(case.f, case.z0, case.x[order], solver=solver)
    assert torch.equal(shuffled.steps, batch.steps[order])
    assert torch.allclose(shuffled.state, batch.state[order], rtol=0, atol=1e-12 * batch.state.abs().max().item())
    for i in range(6):
        alone = poise.fixed_point(case.f, case.z0[:1], case.x[i : i + 1], solver=solver)
        assert alone.steps[0] == batch.steps[i]
        assert torch.allclose(alone.state[0], batch.state[i], rtol=0, atol=1e-12 * batch.state.abs().max().item())


@pytest.mark.parametrize("name", ITERATIVE)
def test_sample_alone_in_float32(name):
    case = dense(batch=8, n=16, gain=0.9)
    weight = case.parameters[0].detach().float()
    f, x, z0 = (lambda z, x: torch.tanh(z @ weight.T + x)), case.x.float(), case.z0.float()
    solver = with_options(name, rtol=1e-4, max_steps=200)
    batch = poise.fixed_point(f, z0, x, solver=solver)
    for i in range(len(x)):
        alone = poise.fixed_point(f, z0[:1], x[i : i + 1], solver=solver)
        assert abs(int(alone.steps[0]) - int(batch.steps[i])) <= 1
        assert (alone.state[0] - batch.state[i]).norm() <= 5 * 1e-4 * batch.state[i].norm()


def tanh_mixed():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(32, 32, generator=generator, dtype=torch.float64)
    weight = weight / torch.linalg.matrix_norm(weight, 2)
    x = torch.cat(
        [torch.randn(64, 32, generator=generator).double(), torch.linspace(0.1, 0.97, 64).unsqueeze(1)], dim=1
    )
    return lambda z, x: torch.tanh(x[:, -1:] * (z @ weight.T) + x[:, :-1]), x, torch.zeros(64, 32).double()


@pytest.mark.parametrize("kind", ["linear", "tanh"])
@pytest.mark.parametrize("name", ITERATIVE)
def test_finished_samples_stop_costing(name, kind):
    if kind == "linear":
        case = linear(torch.linspace(0.1, 0.97, 64), n=64)
        f, x, z0 = case.f, case.x, case.z0
    else:
        f, x, z0 = tanh_mixed()
    solver = with_options(name, rtol=1e-4, max_steps=2000)
    solution = poise.fixed_point(f, z0, x, solver=solver)
    alone = sum(poise.fixed_point(f, z0[i : i + 1], x[i : i + 1], solver=solver).evaluations for i in range(len(x)))
    assert solution.ok
    assert solution.rows <= 1.15 * alone


@pytest.mark.parametrize("name", ITERATIVE)
def test_without_a_context_samples_are_frozen(name):
    case = linear(torch.tensor([0.1, 0.95]))
    solver = with_options(name, rtol=1e-6, max_steps=600)
    closed = poise.fixed_point(lambda z: case.f(z, case.x), case.z0, solver=solver)
    declared = poise.fixed_point(case.f, case.z0, case.x, solver=solver)
    assert torch.equal(closed.steps, declared.steps)
    assert torch.allclose(closed.state, declared.state, rtol=0, atol=1e-12)
    assert closed.rows == 2 * closed.evaluations


@pytest.mark.parametrize("name", ITERATIVE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64])
def test_keeps_the_dtype(name, dtype):
    matrix = torch.eye(5, dtype=dtype) * (0.4 + (0.3j if dtype.is_complex else 0))
    x = torch.ones(3, 5, dtype=dtype)
    solver = with_options(name, rtol=1e-2 if dtype.itemsize == 2 else 1e-5, max_steps=100)
    solution = poise.fixed_point(lambda z, x: z @ matrix + x, torch.zeros_like(x), x, solver=solver)
    assert solution.state.dtype == dtype
    wide = torch.complex128 if dtype.is_complex else torch.float64
    expected = torch.linalg.solve(torch.eye(5, dtype=wide) - matrix.T.to(wide), x.T.to(wide)).T
    assert (solution.state.to(wide) - expected).abs().max() <= (5e-2 if dtype.itemsize == 2 else 1e-4)


@pytest.mark.parametrize("name", ITERATIVE)
def test_fixed_budget_is_spent_and_is_no_failure(name):
    case = dense()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solution = poise.fixed_point(case.f, case.z0, case.x, solver=with_options(name, rtol=None, max_steps=5))
    assert solution.evaluations == 5 and solution.ok
    assert (solution.steps == 5).all() and solution.rows == 5 * len(case.x)


@pytest.mark.parametrize("name", ITERATIVE)
def test_budget_of_one_returns_the_image_of_the_start(name):
    case = dense()
    with pytest.warns(poise.ConvergenceWarning, match="BUDGET for 4 of 4"):
        solution = poise.fixed_point(case.f, case.z0, case.x, solver=with_options(name, max_steps=1))
    assert (solution.status == Status.BUDGET).all() and not solution.ok
    assert torch.equal(solution.state, case.f(case.z0, case.x))


@pytest.mark.parametrize("name", SOLVERS)
def test_start_at_the_answer_costs_one_evaluation(name):
    case = dense()
    solution = poise.fixed_point(case.f, case.solution(), case.x, solver=with_options(name, rtol=1e-8), check=False)
    assert solution.evaluations == 1 and (solution.steps == 1).all() and solution.ok


@pytest.mark.parametrize("name", ITERATIVE)
@pytest.mark.parametrize("fixed", [False, True])
def test_padding_does_not_count(name, fixed):
    """With a mask the valid entries take the same path as without the padding."""
    # Wider than the budget is long: in an exhausted space weights are made of rounding, and so is the path.
    case, n = dense(batch=3, n=16), 16
    weight = case.parameters[0].detach()
    x = torch.cat([case.x, torch.full((3, 4), 100.0).double()], dim=1)
    valid = torch.arange(n + 4).expand(3, n + 4) < n
    solver = with_options(name, rtol=None if fixed else 1e-9, max_steps=12 if fixed else 200)
    padded = poise.fixed_point(
        lambda z, x: torch.cat([torch.tanh(z[:, :n] @ weight.T + x[:, :n]), 0.99 * z[:, n:] + x[:, n:]], dim=1),
        torch.zeros(3, n + 4).double(), x, solver=solver, valid=valid,
    )  # fmt: skip
    plain = poise.fixed_point(case.f, case.z0, case.x, solver=solver)
    assert torch.equal(padded.steps, plain.steps)
    assert torch.allclose(padded.state[:, :n], plain.state, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ITERATIVE)
def test_is_a_value(name):
    solver = SOLVERS[name]
    assert pickle.loads(pickle.dumps(solver)) == solver and hash(solver) == hash(pickle.loads(pickle.dumps(solver)))
    assert eval(repr(solver), {name: getattr(poise, name) for name in poise.__all__}) == solver


@pytest.mark.parametrize("name", ITERATIVE)
def test_scale_of_the_problem_changes_nothing(name):
    """No absolute regularisation: a linear map takes the same steps at every scale of its input."""
    case = linear(torch.tensor([0.5, 0.9]))
    solver = with_options(name, rtol=1e-6, max_steps=600)
    steps = []
    for scale in (1e-6, 1.0, 1e6):
        x = torch.cat([scale * case.x[:, :-1], case.x[:, -1:]], dim=1)
        steps.append(poise.fixed_point(case.f, case.z0, x, solver=solver).steps.tolist())
    assert steps[0] == steps[1] == steps[2]


@pytest.mark.parametrize("options", [{"rtol": -1.0}, {"max_steps": 0}, {"scope": "token"}, {"atol": float("nan")}])
@pytest.mark.parametrize("name", ITERATIVE)
def test_refuses_options_that_mean_nothing(name, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}=.*; pass"):
        with_options(name, **options)
