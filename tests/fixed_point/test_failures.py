"""Every way to fail has its status or its sentence, forward and backward, and stays with its sample."""

import warnings

import pytest
import torch

import poise
from poise import GMRES, Anderson, Broyden, CellWarning, ConvergenceError, ConvergenceWarning, Implicit, Picard, Status
from tests.contracts.problems import dense, linear

SOLVERS = [Picard(), Anderson(), Anderson(form="type2"), Broyden(), Broyden(line_search=True)]
by_name = {"ids": lambda value: repr(value)[:40]}


@pytest.mark.parametrize("solver", [Picard(max_steps=200), Anderson(rtol=1e-9, max_steps=15, history=2)], **by_name)
def test_a_divergent_map_says_so(solver):
    """z -> 3z + sin(10 z) x has no attracting fixed point."""
    x = torch.ones(2, 8)
    with pytest.warns(ConvergenceWarning, match=r"ended \w+ for 2 of 2 samples .*asked: rtol.*; "):
        solution = poise.fixed_point(
            lambda z, x: 3 * z + torch.sin(10 * z) + x, torch.ones(2, 8), x, solver=solver, check=False
        )
    assert not solution.ok and solution.state.isfinite().all()
    assert (solution.failed).all()
    with pytest.raises(ConvergenceError):
        solution.raise_if_failed()


def test_picard_on_an_expansive_map_diverges_early_and_returns_a_finite_state():
    with pytest.warns(ConvergenceWarning, match="DIVERGED for 3 of 3.*make the cell contract"):
        solution = poise.fixed_point(
            lambda z, x: 4 * z + x, torch.zeros(3, 4), torch.ones(3, 4), solver=Picard(max_steps=500), check=False
        )
    assert (solution.status == Status.DIVERGED).all() and solution.evaluations < 40
    assert solution.state.isfinite().all()


def nan_cell(z, x):
    """Turns the samples whose last input is 1 into NaN from the third evaluation on (the state has then grown)."""
    bad = (x[:, -1:] == 1) & (z.norm(dim=1, keepdim=True) > 1.2)
    return torch.where(bad, float("nan"), 1.0) * (0.5 * z + x[:, :-1])


@pytest.mark.parametrize("solver", SOLVERS, **by_name)
@pytest.mark.parametrize("context", [True, False])
def test_nan_stays_with_its_sample(solver, context):
    x = torch.ones(3, 5)
    x[:, -1] = torch.tensor([0.0, 1.0, 0.0])
    f, c = (nan_cell, x) if context else ((lambda z: nan_cell(z, x)), None)
    with pytest.warns(ConvergenceWarning, match="NONFINITE for 1 of 3.*look for NaN"):
        solution = poise.fixed_point(f, torch.zeros(3, 4), c, solver=solver, check=False)
    assert solution.status.tolist() == [Status.CONVERGED, Status.NONFINITE, Status.CONVERGED]
    assert solution.state.isfinite().all()  # the last finite state of the sample that failed
    assert torch.allclose(solution.state[[0, 2]], torch.full((2, 4), 2.0), atol=1e-3)


@pytest.mark.parametrize("adjoint", [Implicit(), poise.Phantom(3), poise.JacobianFree(), poise.Unrolled()], **by_name)
def test_a_nan_sample_spoils_no_gradient(adjoint):
    weight = torch.full((4,), 0.5, requires_grad=True)
    x = torch.ones(3, 4)
    x[1] = float("nan")
    x.requires_grad_()
    solution = poise.fixed_point(
        lambda z, x: weight * z + x, torch.zeros(3, 4), x, adjoint=adjoint, on_failure="ignore"
    )
    torch.where(solution.failed.unsqueeze(1), 0.0, solution.state).sum().backward()
    one_step = isinstance(adjoint, poise.JacobianFree)
    assert torch.allclose(x.grad[[0, 2]], torch.full((2, 4), 1.0 if one_step else 2.0), rtol=0.2)
    if not isinstance(adjoint, poise.Unrolled):  # which differentiates the evaluations that were made, NaN included
        assert weight.grad.isfinite().all() and (x.grad[1] == 0).all()


def test_a_backward_that_fails_says_so_and_is_counted():
    case = linear(torch.tensor([0.2, 0.95]))
    x = case.x.requires_grad_()
    adjoint = Implicit(GMRES(rtol=1e-12, max_steps=2))
    solution = poise.fixed_point(case.f, case.z0, x, adjoint=adjoint)
    assert solution.backward is None
    with pytest.warns(
        ConvergenceWarning, match=r"the backward solve ended BUDGET for 2 of 2 samples .*after 2 evaluations"
    ):
        solution.state.sum().backward()
    assert solution.backward.evaluations == 2 and not solution.backward.ok
    solution = poise.fixed_point(case.f, case.z0, x, adjoint=adjoint, on_failure="raise")
    with pytest.raises(ConvergenceError, match="the backward solve ended BUDGET"):
        solution.state.sum().backward()


def test_a_nan_gradient_passes_on():
    """Loss scaling looks for it; it is not turned into a zero."""
    case = dense()
    x = case.x.requires_grad_()
    solution = poise.fixed_point(case.f, case.z0, x, on_failure="ignore")
    grad = torch.ones_like(solution.state)
    grad[0] = float("nan")
    (found,) = torch.autograd.grad(solution.state, x, grad)
    assert found[0].isnan().all() and found[1:].isfinite().all()


def test_on_failure():
    case = linear(torch.tensor([0.9]))
    starved = Picard(max_steps=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not poise.fixed_point(case.f, case.z0, case.x, solver=starved, on_failure="ignore").ok
    with pytest.raises(ConvergenceError, match="BUDGET for 1 of 1.*raise max_steps"):
        poise.fixed_point(case.f, case.z0, case.x, solver=starved, on_failure="raise")
    with pytest.raises(ValueError, match="on_failure='loud' is unknown; pass"):
        poise.fixed_point(case.f, case.z0, case.x, on_failure="loud")


def test_the_warning_points_at_the_callers_line():
    case = linear(torch.tensor([0.9]))
    with pytest.warns(ConvergenceWarning) as caught:
        poise.fixed_point(case.f, case.z0, case.x, solver=Picard(max_steps=3))
    assert caught[0].filename == __file__


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_below_the_floor_of_the_dtype_is_stalled_not_failed(dtype):
    generator = torch.Generator().manual_seed(0)
    weight = (0.9 * torch.linalg.qr(torch.randn(32, 32, generator=generator)).Q).to(dtype)
    x = torch.randn(4, 32, generator=generator).to(dtype)
    with pytest.warns(ConvergenceWarning, match="STALLED for .* of 4.*loosen rtol, or run the cell in a wider dtype"):
        solution = poise.fixed_point(
            lambda z, x: torch.tanh(z @ weight + x),
            torch.zeros_like(x),
            x,
            solver=Anderson(rtol=1e-12, max_steps=300),
            check=False,
        )
    assert (solution.status == Status.STALLED).any() and solution.ok and solution.evaluations < 150
    solution.raise_if_failed()


@pytest.mark.parametrize("solver", SOLVERS, **by_name)
def test_an_empty_batch(solver):
    x = torch.zeros(0, 4, requires_grad=True)
    solution = poise.fixed_point(lambda z, x: 0.5 * z + x, torch.zeros(0, 4), x, solver=solver)
    assert solution.state.shape == (0, 4) and solution.ok and "empty batch" in repr(solution)
    solution.state.sum().backward()
    assert x.grad.shape == (0, 4)


def test_one_number_a_sample():
    solution = poise.fixed_point(
        lambda z, x: torch.cos(z) * x, torch.zeros(3), torch.ones(3), solver=Anderson(rtol=1e-6)
    )
    assert torch.allclose(solution.state, torch.full((3,), 0.7390851), atol=1e-5)


@pytest.mark.parametrize(
    ("f", "z0", "context", "error", "message"),
    [
        (lambda z: z, torch.tensor(1.0), None, ValueError, r"shape \(\); pass z0.reshape\(1\)"),
        (lambda z: z, torch.zeros(3, dtype=torch.long), None, TypeError, "torch.int64; pass z0.float"),
        (lambda z: z, [torch.zeros(3)], None, TypeError, "z0 holds list"),
        (lambda z: z, (), None, TypeError, "an empty tuple"),
        (lambda z: z, (torch.zeros(2, 1), torch.zeros(3, 1)), None, ValueError, r"one batch size, but z0 has \[2, 3\]"),
        (
            lambda z: z[:, :2],
            torch.zeros(2, 3),
            None,
            ValueError,
            r"returned shape \(2, 2\) for a state of shape \(2, 3\)",
        ),
        (
            lambda z: z.double(),
            torch.zeros(2, 3),
            None,
            TypeError,
            "returned torch.float64 for a state of torch.float32",
        ),
        (lambda z: (z, z), torch.zeros(2, 3), None, TypeError, "returned a tuple of 2 for a state that is a Tensor"),
        (
            lambda z: z[0],
            (torch.zeros(2), torch.zeros(2)),
            None,
            TypeError,
            "returned a Tensor for a state that is a tup",
        ),
        (lambda z: None, torch.zeros(2, 3), None, TypeError, "returned a NoneType"),
        (
            lambda z, c: z,
            torch.zeros(2, 3),
            torch.zeros(3, 3),
            ValueError,
            r"context has shape \(3, 3\) but .* 2 samples",
        ),
        (
            lambda z, c: z,
            torch.zeros(2, 3),
            {"a": [torch.zeros(())]},
            ValueError,
            r"context\['a'\]\[0\] has shape \(\)",
        ),
    ],
)
def test_wrong_calls_get_one_sentence(f, z0, context, error, message):
    with pytest.raises(error, match=message) as caught:
        poise.fixed_point(f, z0, context)
    assert str(caught.value).endswith(".") and str(caught.value).count(". ") == 0


def test_a_mask_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"valid is a mask of bools .*\(2, 3\).*torch.float32 of shape \(2,\)"):
        poise.fixed_point(lambda z: 0.5 * z, torch.zeros(2, 3), valid=torch.ones(2))


class BatchMean(torch.nn.Module):
    def forward(self, z, x):
        return torch.tanh(0.5 * (z - z.mean(dim=0)) + x)


def test_a_cell_that_couples_its_samples_is_found_out():
    x = torch.randn(8, 4)
    with pytest.warns(CellWarning, match="the cell BatchMean couples its samples: .*LayerNorm"):
        poise.fixed_point(BatchMean(), torch.zeros(8, 4), x)
    norm = torch.nn.BatchNorm1d(4)
    with pytest.warns(CellWarning, match=r"couples its samples: it cannot be evaluated on one alone .*LayerNorm"):
        poise.fixed_point(lambda z, x: 0.5 * norm(z + x), torch.zeros(8, 4), x, on_failure="ignore")


def test_a_cell_with_noise_of_its_own_is_found_out():
    with pytest.warns(CellWarning, match="not deterministic.*draw noise and dropout masks once a solve"):
        poise.fixed_point(
            lambda z, x: 0.5 * torch.nn.functional.dropout(z + x, 0.5), torch.zeros(8, 4), torch.ones(8, 4),
            on_failure="ignore",
        )  # fmt: skip


@pytest.mark.parametrize("fault", ["noise", "coupling"])
def test_a_cell_in_half_precision_is_found_out(fault):
    def f(z, x):
        state = torch.nn.functional.dropout(z, 0.2) if fault == "noise" else z - z.mean(dim=0)
        return torch.tanh(0.5 * state + x)

    x = torch.randn(8, 64, dtype=torch.bfloat16)
    with pytest.warns(CellWarning, match="not deterministic" if fault == "noise" else "couples its samples"):
        poise.fixed_point(f, torch.zeros_like(x), x, solver=Anderson(rtol=0.02), on_failure="ignore")


def test_a_cell_that_ignores_its_context_is_found_out():
    with pytest.warns(CellWarning, match="ignores its context"):
        poise.fixed_point(lambda z, x: 0.5 * z + 1, torch.zeros(8, 4), torch.randn(8, 4))


def test_a_sound_cell_is_not_warned_of():
    case = dense()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        poise.fixed_point(case.f, case.z0, case.x)
        poise.fixed_point(case.f, case.z0, case.x[:1].expand(4, -1).contiguous())  # equal contexts prove nothing


def test_a_solution_reads_as_a_sentence():
    case = linear(torch.tensor([0.1, 0.9]))
    solution = poise.fixed_point(case.f, case.z0, case.x)
    assert repr(solution).startswith("Solution: 2 CONVERGED of 2 samples in ")
    assert solution.trace.shape == (solution.evaluations, 2)
    assert solution.trace[: solution.steps[0], 0].isfinite().all()
    assert (solution.trace[-1] <= 1e-4).logical_or(solution.trace[-1].isnan()).all()


def test_find_root():
    a = torch.tensor([[2.0], [9.0]], dtype=torch.float64, requires_grad=True)
    solution = poise.find_root(lambda z, a: (a - z * z) / 4, torch.ones(2, 1).double(), a, solver=Anderson(rtol=1e-12))
    assert torch.allclose(solution.state, a.sqrt())
    solution.state.sum().backward()
    assert torch.allclose(a.grad, 0.5 / a.detach().sqrt())
    pair = poise.find_root(lambda z: (-0.5 * z[0] + 1, z[0] - z[1]), (torch.zeros(1, 1), torch.zeros(1, 1)))
    assert torch.allclose(pair.state[0], torch.tensor(2.0), atol=1e-3)
    with pytest.raises(ValueError, match=r"returned shape \(2, 2\)"):
        poise.find_root(lambda z: z[:, :2], torch.zeros(2, 3))


def test_an_absolute_tolerance_is_named_where_it_was_asked_for():
    case = linear(torch.tensor([0.5, 0.99]))
    reached = poise.fixed_point(case.f, case.z0, case.x, solver=Picard(rtol=1e-9, atol=1.0))
    assert reached.atol == 1.0 and repr(reached).endswith(", asked: rtol 1e-09 or atol 1")
    with pytest.warns(ConvergenceWarning, match=r"asked: rtol 1e-06 or atol 1e-08\)"):
        missed = poise.fixed_point(case.f, case.z0, case.x, solver=Picard(rtol=1e-6, atol=1e-8, max_steps=5))
    assert "asked: rtol 1e-06 or atol 1e-08" in missed.describe("the solve")
    plain = poise.fixed_point(case.f, case.z0, case.x, solver=Anderson())
    assert "atol" not in plain.describe("the solve") and "asked" not in repr(plain)
    fixed = poise.fixed_point(case.f, case.z0, case.x, solver=Picard(rtol=None, atol=1e-3, max_steps=3))
    assert "asked: a fixed budget" in fixed.describe("the solve")
