"""What a review found: each test fails without its remedy."""

import gc

import pytest
import torch

import poise
from poise import Anderson, Broyden, NewtonKrylov, Picard, Status, Unrolled
from tests.contracts.problems import dense


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


def test_a_warm_start_begins_anew_where_a_sample_was_lost():
    f = lambda z, x: (0.5 * z[0] + x, 0.5 * z[1] + 1)  # noqa: E731
    x = torch.ones(3, 2)
    x[1, 0] = float("nan")
    z0 = (torch.zeros(3, 2), torch.ones(3, 1))
    options = {"solver": Picard(rtol=1e-5), "on_failure": "ignore", "check": False}
    lost = poise.fixed_point(f, z0, x, **{**options, "solver": Picard(rtol=None, max_steps=30)})
    assert not lost.state[0][1].isfinite().all()
    found = poise.fixed_point(f, lost, torch.ones(3, 2), **options)
    assert found.ok and found.steps[1] > 10 > found.steps[0]


class _WithoutTangent(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        return grad * (1 - y * y)


@pytest.mark.parametrize("budget", [1, 2, 3, 5, 8, 13, 40])
@pytest.mark.parametrize("tangents", [True, False])
def test_newton_spends_a_fixed_budget_exactly(budget, tangents):
    case, calls = dense(batch=5, n=16, gain=0.9), 0
    weight = case.parameters[0].detach()

    def f(z, x):
        nonlocal calls
        calls += 1
        return (torch.tanh if tangents else _WithoutTangent.apply)(z @ weight.T + x)

    solver = NewtonKrylov(rtol=None, max_steps=budget)
    with torch.no_grad():
        solution = poise.fixed_point(f, case.z0, case.x.detach(), solver=solver, check=False)
    assert solution.evaluations == budget and (solution.steps == budget).all()
    # A product in forward mode is a call of the cell; by two backwards it is none, but one is recorded a step.
    assert calls == budget if tangents else calls <= budget


def test_newton_tries_forward_mode_once():
    case, tried = dense(batch=3, n=16, gain=0.9), 0

    def f(z, x):
        nonlocal tried
        tried += torch.autograd.forward_ad.unpack_dual(z).tangent is not None if forward_level() else 0
        return _WithoutTangent.apply(z @ case.parameters[0].detach().T + x)

    def forward_level():
        return torch.autograd.forward_ad._current_level >= 0

    with torch.no_grad():
        solution = poise.fixed_point(f, case.z0, case.x.detach(), solver=NewtonKrylov(rtol=1e-8), check=False)
    assert solution.ok and tried == 1
    # A finished row may stay for an evaluation or two.
    assert solution.steps.sum() <= solution.rows <= 1.05 * solution.steps.sum()


@pytest.mark.parametrize("adjoint", [poise.Implicit(), poise.Implicit(reuse=True)], ids=str)
def test_nothing_of_a_solve_outlives_its_backward(adjoint):
    """Of the tensors larger than a state's row count, the state alone is left while somebody holds it."""
    case = dense(batch=4, n=32)
    case.x.requires_grad_()
    weight = case.parameters[0].detach()
    before = alive(4 * 32)
    solution = poise.fixed_point(
        lambda z, x: torch.tanh(z @ weight.T + x), case.z0, case.x, solver=Broyden(rtol=1e-8), adjoint=adjoint
    )
    state = solution.state
    del solution
    state.square().sum().backward()
    assert alive(4 * 32) - before <= 3  # the state, the gradient, and the injection that the graph names


def alive(numbers):
    gc.collect()
    storages = {
        tensor.untyped_storage().data_ptr() for tensor in gc.get_objects()
        if type(tensor) is torch.Tensor and tensor.untyped_storage().nbytes() >= 8 * numbers
    }  # fmt: skip
    return len(storages)


def replaced_weights(adjoint, changed):
    """The loss of a layer whose weights functional_call replaces, and their gradient by a backward after it."""
    layer = poise.Equilibrium(
        poise.nn.inject(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4), torch.nn.Tanh())).double(),
        Picard(rtol=None, max_steps=8),
        adjoint,
    )
    given = {name: (changed * p.detach()).requires_grad_() for name, p in layer.named_parameters()}
    x = torch.randn(3, 4, dtype=torch.float64)
    return torch.func.functional_call(layer, given, (x,)).square().sum(), list(given.values())


def test_checkpoints_refuse_weights_that_functional_call_has_put_back():
    """LayerNorm hides a weight's change from the size of the image."""
    loss, given = replaced_weights(Unrolled(checkpoint=True), 1.5)
    with pytest.raises(RuntimeError, match="gave something else.*use Unrolled"):
        torch.autograd.grad(loss, given)
    torch.manual_seed(0)
    loss, given = replaced_weights(Unrolled(checkpoint=True), 1.0)  # the same weights, whoever holds them
    found = torch.autograd.grad(loss, given)
    torch.manual_seed(0)
    loss, given = replaced_weights(Unrolled(), 1.0)
    for a, b in zip(found, torch.autograd.grad(loss, given), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


def test_checkpoints_refuse_weights_that_were_changed_since():
    weight = torch.full((3,), 0.5, requires_grad=True)
    solution = poise.fixed_point(
        lambda z, x: torch.tanh(weight * z + x), torch.zeros(2, 3), torch.ones(2, 3), adjoint=Unrolled(checkpoint=True)
    )
    with torch.no_grad():
        weight.mul_(1.001)
    with pytest.raises(RuntimeError, match="weights were changed since"):
        solution.state.sum().backward()


def test_checkpoints_do_not_mind_a_lost_sample():
    x = torch.tensor([[1.0, 1.0], [float("nan"), 1.0]], requires_grad=True)
    solver = Picard(rtol=None, max_steps=5)
    gradients = []
    for adjoint in (Unrolled(checkpoint=True), Unrolled()):
        solution = poise.fixed_point(
            lambda z, x: torch.tanh(0.5 * z + x), torch.zeros(2, 2), x, solver=solver, adjoint=adjoint,
            on_failure="ignore",
        )  # fmt: skip
        assert solution.status.tolist() == [Status.BUDGET, Status.NONFINITE]
        (slope,) = torch.autograd.grad(solution.state[0].sum(), x)
        gradients.append(slope[0])
    assert torch.equal(*gradients) and gradients[0].isfinite().all()
