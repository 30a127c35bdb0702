"""The reversible solve, against the same steps unrolled by plain autograd."""

import copy

import pytest
import torch
from torch import nn

import poise
from poise import Anderson, ConvergenceError, ConvergenceWarning, Equilibrium, External, Picard, Reversible, Status
from poise.nn import activation_bytes
from tests.contracts.problems import PROBLEMS, dense, flatten, linear


def coupled(f, z0, x, damping, evaluations):
    """y' = (1 - b) y + b f(z), z' = (1 - b) z + b f(y'), recorded; returns the last evaluation."""
    parts = z0 if isinstance(z0, tuple) else (z0,)
    y, z = parts, parts

    def call(state):
        image = f(state if isinstance(z0, tuple) else state[0], x)
        return image if isinstance(image, tuple) else (image,)

    def mix(old, image):
        return tuple((1 - damping) * a + damping * b for a, b in zip(old, image, strict=True))

    for count in range(evaluations):
        image = call(z if count % 2 == 0 else y)
        if count == evaluations - 1:
            break
        if count % 2 == 0:
            y = mix(y, image)
        else:
            z = mix(z, image)
    return image if isinstance(z0, tuple) else image[0]


def weights_of(case):
    return torch.randn(flatten(case.z0).shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def solve(case, x, damping=0.5, evaluations=8, z0=None, **options):
    solver = Picard(damping=damping, rtol=None, max_steps=evaluations)
    start = case.z0 if z0 is None else z0
    return poise.fixed_point(case.f, start, x, solver=solver, adjoint=Reversible(), **options)


def assert_close(found, expected, atol):
    for a, b in zip(found, expected, strict=True):
        b = torch.zeros_like(a) if b is None else b
        assert (a - b).abs().max() <= atol * max(1.0, b.abs().max().item())


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("damping", [0.5, 0.8, 1.4])
@pytest.mark.parametrize("evaluations", [1, 2, 3, 8, 13])
def test_is_the_unrolled_gradient(evaluations, damping, problem):
    case = PROBLEMS[problem]()
    x = case.x.detach().requires_grad_()
    found = solve(case, x, damping, evaluations).state
    expected = coupled(case.f, case.z0, x, damping, evaluations)
    assert_close([flatten(found)], [flatten(expected)], 1e-14)
    inputs = [x, *case.parameters]
    assert_close(
        torch.autograd.grad((flatten(found) * weights_of(case)).sum(), inputs, materialize_grads=True),
        torch.autograd.grad((flatten(expected) * weights_of(case)).sum(), inputs, materialize_grads=True),
        1e-8,
    )


def test_the_start_has_its_gradient():
    case = dense()
    start = (0.1 * weights_of(case)).requires_grad_()
    found = torch.autograd.grad(solve(case, case.x, 0.5, 4, start).state.square().sum(), start)
    expected = torch.autograd.grad(coupled(case.f, start, case.x, 0.5, 4).square().sum(), start)
    assert_close(found, expected, 1e-12)


@pytest.mark.parametrize("check", [True, False])
def test_each_sample_is_inverted_for_its_own_steps(check):
    """Converged, and out of budget: a sample that failed returns its best iterate, and that one's gradient."""
    case = linear(torch.tensor([0.1, 0.6, 0.9, 0.99]), n=6)
    x = case.x.detach().requires_grad_()
    solution = poise.fixed_point(
        case.f, case.z0, x, solver=Picard(damping=0.5, rtol=1e-2, max_steps=30), adjoint=Reversible(),
        on_failure="ignore", check=check,
    )  # fmt: skip
    assert solution.status.tolist()[:2] == [0, 0] and solution.status[3] == Status.BUDGET
    assert len(set(solution.steps.tolist())) >= 3
    (found,) = torch.autograd.grad((solution.state * weights_of(case)).sum(), x)
    counts = solution.steps.tolist()
    counts[3] = int(solution.trace[:, 3].argmin()) + 1
    for row, count in enumerate(counts):
        one = x[row : row + 1].detach().requires_grad_()
        state = coupled(case.f, case.z0[:1], one, 0.5, count)
        assert torch.allclose(state[0], solution.state[row], atol=1e-12)
        (expected,) = torch.autograd.grad((state * weights_of(case)[row]).sum(), one)
        assert_close([found[row]], [expected[0]], 1e-8)
    assert solution.backward.steps.tolist() == counts and (solution.backward.residual < 1e-8).all()


def test_memory_is_flat_in_the_steps():
    case = dense(batch=8, n=32)
    x = case.x.requires_grad_()

    def held(evaluations):
        return activation_bytes(
            lambda: solve(case, x, 0.5, evaluations, check=False).state, [x, case.z0, *case.parameters]
        )

    assert held(40) == held(4)


@pytest.mark.parametrize("damping", [0.5, 0.8])
def test_memory_is_that_of_one_evaluation_and_of_the_iterate_before(damping):
    """Two states in float64, no more: the last iterate is what the recorded evaluation holds already."""
    case = dense(batch=8, n=32)
    x, given = case.x.requires_grad_(), [case.x, case.z0, *case.parameters]
    held = activation_bytes(lambda: solve(case, x, damping, 40, check=False).state, given)
    one = activation_bytes(lambda: case.f(torch.zeros_like(x), x), given)
    counts = 8 * 8  # of evaluations, int64
    assert held == one + case.z0.nbytes + counts


def test_a_float32_cell_is_inverted_in_float64():
    """In float32 throughout 16 evaluations at damping 0.8 would lose 5^8 to 5^15 times 6e-8: everything."""
    case = dense(batch=5, n=8)
    weight, x = case.parameters[0].detach().float().requires_grad_(), case.x.float().requires_grad_()
    state = poise.fixed_point(
        lambda z, x: torch.tanh(z @ weight.T + x), torch.zeros(5, 8), x,
        solver=Picard(damping=0.8, rtol=None, max_steps=16), adjoint=Reversible(),
    ).state  # fmt: skip
    assert state.dtype == torch.float32
    found = torch.autograd.grad(state.square().sum(), [x, weight])
    wide, w = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    exact = coupled(lambda z, x: torch.tanh(z @ w.T + x), torch.zeros(5, 8).double(), wide, 0.8, 16)
    expected = torch.autograd.grad(exact.square().sum(), [wide, w])
    assert_close([g.double() for g in found], expected, 2e-6)


def test_where_inversion_is_unsafe_it_says_so():
    """A slow cell: the gradient reaches the start, and so do 5^23 units of rounding."""
    case = linear(torch.tensor([0.1, 0.98]), n=6)
    x = case.x.detach().requires_grad_()
    case = type(case)("curved", lambda z, x: x[:, -1:] * torch.sin(z) + 0.1 * x[:, :-1], case.z0, x)
    solution = solve(case, x, 0.8, 44)
    with pytest.warns(
        ConvergenceWarning, match=r"Reversible\(\) is off by about .* in 1 of 2 samples .*44 evaluations"
    ):
        (found,) = torch.autograd.grad(solution.state.sum(), x)
    (expected,) = torch.autograd.grad(coupled(case.f, case.z0, x, 0.8, 44).sum(), x)
    error = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert solution.backward.status.tolist() == [Status.CONVERGED, Status.DIVERGED]
    assert error[0] < 1e-6 < error[1]
    with pytest.raises(ConvergenceError, match="damping 0.8 lets rounding of 2.2e-16 grow by up to 5 in each"):
        solve(case, x, 0.8, 44, on_failure="raise").state.sum().backward()


@pytest.mark.parametrize("damping", [0.5, 0.8])
@pytest.mark.parametrize("evaluations", [8, 16, 24, 32])
def test_the_estimate_of_the_error_is_no_promise_too_good(evaluations, damping):
    case = dense(gain=0.95)
    x = case.x.detach().requires_grad_()
    solution = solve(case, x, damping, evaluations, on_failure="ignore")
    (found,) = torch.autograd.grad((solution.state * weights_of(case)).sum(), x)
    (expected,) = torch.autograd.grad((coupled(case.f, case.z0, x, damping, evaluations) * weights_of(case)).sum(), x)
    error = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert (error <= solution.backward.residual + 1e-13).all()


def computed_closure(x, raw):
    weight = 0.5 * raw
    return lambda z, c: torch.tanh(z @ weight + c)


def closes_over_the_context_too(x, raw):
    return lambda z, c: torch.tanh(0.5 * z @ raw + c * x[:1].cos())


@pytest.mark.parametrize("make", [computed_closure, closes_over_the_context_too])
def test_what_the_cell_closes_over(make):
    raw = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double()
    raw = (raw / torch.linalg.matrix_norm(raw, 2)).requires_grad_()
    x = torch.linspace(-1, 1, 12).reshape(3, 4).double().requires_grad_()
    z0 = torch.zeros(3, 4).double()
    solver = Picard(damping=0.5, rtol=None, max_steps=9)
    state = poise.fixed_point(make(x, raw), z0, x, solver=solver, adjoint=Reversible(), check=False).state
    again = state.square().sum()
    found = torch.autograd.grad(again, [x, raw], retain_graph=True)
    assert_close(found, torch.autograd.grad(coupled(make(x, raw), z0, x, 0.5, 9).square().sum(), [x, raw]), 1e-10)
    assert_close(torch.autograd.grad(again, [x, raw]), found, 0.0)  # a retained graph
    assert raw.grad is None  # nothing was accumulated behind the caller's back


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.w, self.u = nn.Linear(5, 5).double(), nn.Linear(5, 5).double()
        nn.init.orthogonal_(self.w.weight, gain=0.7)

    def inject(self, x):
        return self.u(x)

    def forward(self, z, context):
        return torch.tanh(self.w(z) + context)


def test_a_layer_in_two_calls_before_one_backward():
    layer = Equilibrium(Cell(), Picard(damping=0.6, rtol=None, max_steps=10), Reversible())
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)).double()
    (layer(x).square().sum() + layer(2 * x).square().sum()).backward()
    twin = copy.deepcopy(layer.cell)
    twin.zero_grad()
    for given in (x, 2 * x):
        coupled(twin, torch.zeros_like(x), twin.inject(given), 0.6, 10).square().sum().backward()
    assert_close([p.grad for p in layer.cell.parameters()], [p.grad for p in twin.parameters()], 1e-10)


def test_an_equilibrium_inside_a_cell():
    inner = Equilibrium(Cell(), Picard(damping=0.5, rtol=None, max_steps=6), Reversible())
    x = torch.linspace(-1, 1, 10).reshape(2, 5).double().requires_grad_()
    solver = Picard(damping=0.5, rtol=None, max_steps=6)

    def gradient(inner):
        def f(z, x):
            return torch.tanh(0.5 * inner(z) + x)

        if isinstance(inner, Equilibrium):
            state = poise.fixed_point(f, torch.zeros_like(x), x, solver=solver, adjoint=Reversible()).state
        else:
            state = coupled(f, torch.zeros_like(x), x, 0.5, 6)
        return torch.autograd.grad(state.square().sum(), [x, *cell.parameters()])

    cell = inner.cell
    expected = gradient(lambda z: coupled(cell, torch.zeros_like(z), cell.inject(z), 0.5, 6))
    assert_close(gradient(inner), expected, 1e-10)


def test_tensors_that_only_early_iterates_use_are_not_lost():
    """A cell whose graph depends on its state, as with routed experts."""
    first, second = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.3, 0.4))
    x = torch.ones(1, 1).double().requires_grad_()

    def f(z, x):
        return (first if z.sum() < 0.45 else second) * z + x

    def solve(**options):
        return poise.fixed_point(
            f, torch.zeros(1, 1).double(), x, solver=Picard(damping=0.5, rtol=None, max_steps=6),
            adjoint=Reversible(), **options,
        ).state  # fmt: skip

    with pytest.raises(RuntimeError, match="met 1 tensors on its way back.*parameters="):
        solve().sum().backward()
    found = torch.autograd.grad(solve(parameters=[first, second]).sum(), [x, first, second])
    expected = torch.autograd.grad(coupled(f, torch.zeros(1, 1).double(), x, 0.5, 6).sum(), [x, first, second])
    assert_close(found, expected, 1e-12)


def test_a_nan_sample_has_no_gradient_and_spoils_none():
    case = dense()
    x = case.x.detach().clone()
    x[1] = float("nan")
    x.requires_grad_()
    with pytest.warns(ConvergenceWarning, match="NONFINITE for 1 of 4"):
        solution = poise.fixed_point(case.f, case.z0, x, solver=Picard(damping=0.5, rtol=1e-3), adjoint=Reversible())
    gradients = torch.autograd.grad(solution.state[[0, 2, 3]].sum(), [x, *case.parameters])
    assert all(gradient.isfinite().all() for gradient in gradients) and (gradients[0][1] == 0).all()


def test_states_on_the_way():
    """`record` and `callback` see the iterates of the coupled iteration, not their pairs."""
    case, seen = dense(), []
    solution = solve(case, case.x, 0.5, 6, record=[1, 4, 6], callback=lambda step: seen.append(step.state))
    for number, state in zip((1, 4, 6), solution.trajectory, strict=True):
        expected = coupled(case.f, case.z0, case.x, 0.5, number)
        assert torch.allclose(state, expected, atol=1e-12) and torch.allclose(seen[number - 1], expected, atol=1e-12)


def test_second_order_is_refused():
    case = dense()
    x = case.x.detach().requires_grad_()
    with pytest.raises(RuntimeError, match=r"second derivative.*use Implicit\(\), or Unrolled\(\)"):
        torch.autograd.grad(solve(case, x).state.sum(), x, create_graph=True)


@pytest.mark.parametrize(
    "solver",
    [Picard(), Anderson(), Picard(damping=0.5, scope="prefix"), External(lambda g, z: z)],
    ids=["undamped", "anderson", "prefix", "external"],
)
def test_only_what_can_be_inverted_is_accepted(solver):
    with pytest.raises(ValueError, match=r"runs backwards only what it can invert.*pass solver=Picard\(damping=0.5\)"):
        poise.fixed_point(
            lambda z, x: 0.5 * z + x, torch.zeros(2, 3), torch.ones(2, 3), solver=solver, adjoint=Reversible()
        )


def test_valid_is_refused():
    with pytest.raises(ValueError, match="cannot hold back entries outside valid"):
        poise.fixed_point(
            lambda z, x: 0.5 * z + x, torch.zeros(2, 3), torch.ones(2, 3), solver=Picard(damping=0.5),
            adjoint=Reversible(), valid=torch.ones(2, 3, dtype=torch.bool),
        )  # fmt: skip
