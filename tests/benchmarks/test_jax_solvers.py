import pytest
import torch

from benchmarks import jax_solvers
from benchmarks.solves import forward_case


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("sys.argv", ["jax_solvers"])
    monkeypatch.setattr(jax_solvers, "find_spec", lambda name: None if name == "jaxopt" else name)
    with pytest.raises(SystemExit, match="jaxopt cannot be imported here"):
        jax_solvers.main()


@pytest.mark.parametrize("build", jax_solvers.CELLS[:3], ids=lambda build: build.__name__)
def test_the_cells_of_jax_are_those_of_torch(build):
    jax = pytest.importorskip("jax", reason="jax is not installed")
    problem = build().select(torch.arange(2))
    z = torch.randn(problem.z0.shape, generator=torch.Generator().manual_seed(0))
    image = jax.vmap(jax_solvers.jax_cell(problem))(z.numpy(), problem.context.numpy())
    assert torch.allclose(torch.tensor(image.tolist()), problem.f(z, problem.context), atol=1e-4)


def test_the_solvers_of_jax_reach_what_is_asked_for():
    for name in jax_solvers.NEEDED:
        pytest.importorskip(name, reason=f"{name} is not installed")
    problem = jax_solvers.dense256().select(torch.arange(2))
    case = forward_case(problem, 1e-3)
    for contestant in jax_solvers.jax_contestants(problem):
        answer = contestant.prepare(case.f, 1e-4, 100)()
        assert jax_solvers._read(case.error)(answer) < 1e-3 and answer.evaluations > 5, contestant.solver
