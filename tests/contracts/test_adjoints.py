"""What every adjoint promises, against the dense implicit gradient and the unrolled one."""

import dataclasses
import pickle

import pytest
import torch

import poise
from poise import GMRES, Anderson, Broyden, Implicit, JacobianFree, Neumann, Phantom, Picard, Reversible, Unrolled
from poise.nn import activation_bytes
from tests.contracts.problems import PROBLEMS, dense, dense_gradients, flatten, linear, unflatten
from tests.contracts.test_linear import LINEAR
from tests.contracts.test_solvers import SOLVERS

TIGHT = {"rtol": 1e-12, "max_steps": 300}
ADJOINTS = {
    "implicit": Implicit(GMRES(rtol=1e-12)),
    "phantom": Phantom(steps=60),
    "phantom_damped": Phantom(steps=120, damping=0.6),
    "phantom_neumann": Phantom(steps=80, form="neumann"),
    "phantom_neumann_damped": Phantom(steps=120, damping=0.6, form="neumann"),
    "unrolled": Unrolled(),
    "unrolled_checkpointed": Unrolled(checkpoint=True),
    "neumann": Implicit(Neumann(terms=80)),
    "reversible": Reversible(),
}
# The solvers of those that differentiate the solver's own steps; the others take any.
OWN_SOLVER = {
    "unrolled": Picard(**TIGHT),
    "unrolled_checkpointed": Picard(**TIGHT),
    "reversible": Picard(damping=0.5, rtol=1e-9, max_steps=300),
}


def weights_of(case):
    return torch.randn(flatten(case.z0).shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def gradients(case, solver, adjoint, **options):
    x = case.x.detach().requires_grad_()
    solution = poise.fixed_point(case.f, case.z0, x, solver=solver, adjoint=adjoint, **options)
    return torch.autograd.grad((flatten(solution.state) * weights_of(case)).sum(), [x, *case.parameters])


def assert_close(found, expected, atol):
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= atol * max(1.0, b.abs().max().item())


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", SOLVERS)
def test_implicit_is_the_dense_gradient_for_every_solver(name, problem):
    case = PROBLEMS[problem]()
    solver = dataclasses.replace(SOLVERS[name], **TIGHT)
    assert_close(gradients(case, solver, ADJOINTS["implicit"]), dense_gradients(case, weights_of(case)), 1e-8)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", [name for name in LINEAR if name != "neumann"])
def test_implicit_is_the_dense_gradient_for_every_linear_solver(name, problem):
    case = PROBLEMS[problem]()
    found = gradients(case, Anderson(**TIGHT), Implicit(LINEAR[name]))
    assert_close(found, dense_gradients(case, weights_of(case)), 1e-8)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", ADJOINTS)
def test_every_adjoint_reaches_the_gradient(name, problem):
    case = PROBLEMS[problem]()
    assert_close(
        gradients(case, OWN_SOLVER.get(name, Anderson(**TIGHT)), ADJOINTS[name]),
        dense_gradients(case, weights_of(case)),
        1e-6,
    )


@pytest.mark.parametrize(
    "solver", [Anderson(rtol=None, max_steps=6), Broyden(rtol=None, max_steps=6), Anderson(rtol=1e-3)]
)
def test_unrolled_differentiates_the_solver_itself(solver):
    """Also of an unfinished solve: against finite differences of the solver's own output."""
    case = dense(batch=2, n=4)
    x = case.x.detach().requires_grad_()

    def solve(x):
        return poise.fixed_point(case.f, case.z0, x, solver=solver, adjoint=Unrolled(), on_failure="ignore").state

    assert torch.autograd.gradcheck(solve, (x,))


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_phantom_and_neumann_errors_fall_with_their_length(steps):
    case = dense(gain=0.6)
    exact = dense_gradients(case, weights_of(case))
    for adjoint in (Phantom(steps=steps), Implicit(Neumann(terms=steps))):
        found = gradients(case, Anderson(**TIGHT), adjoint)
        error = (found[0] - exact[0]).norm() / exact[0].norm()
        assert error <= 3 * 0.6**steps


def phantom_by_formula(case, weights, steps, damping):
    """d * sum over i < steps of (d J^T + (1 - d) I)^i g, J dense, pulled through one evaluation at the solution."""
    z = case.solution()
    x = case.x.detach().requires_grad_()

    def flat(vector):
        return flatten(case.f(unflatten(vector.reshape(weights.shape), z), case.x)).reshape(-1)

    jacobian = torch.autograd.functional.jacobian(flat, flatten(z).reshape(-1))
    step = damping * jacobian.T + (1 - damping) * torch.eye(len(jacobian)).double()
    u = sum(torch.linalg.matrix_power(step, i) @ weights.reshape(-1) for i in range(steps)) * damping
    return torch.autograd.grad(flatten(case.f(z, x)), [x, *case.parameters], u.reshape(weights.shape))


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("damping", [1.0, 0.7])
@pytest.mark.parametrize("steps", [2, 3, 7])
@pytest.mark.parametrize("form", ["unrolled", "neumann"])
def test_phantom_is_its_formula(form, steps, damping, problem):
    """At the fixed point both forms are, which is why they agree there."""
    case = PROBLEMS[problem]()
    found = gradients(case, Anderson(**TIGHT), Phantom(steps, damping, form))
    assert_close(found, phantom_by_formula(case, weights_of(case), steps, damping), 1e-9)


@pytest.mark.parametrize("damping", [1.0, 0.6])
@pytest.mark.parametrize("form", ["unrolled", "neumann"])
def test_phantom_errors_fall_at_the_rate_of_theory(form, damping):
    """The Jacobian is 0.8 S, S symmetric of spectrum -1..1: the slowest mode contracts by 1 - damping + 0.8 damping."""
    case = linear(torch.tensor([0.8]), n=6)
    exact = dense_gradients(case, weights_of(case))[0][:, :-1]
    errors = [
        (gradients(case, Anderson(**TIGHT), Phantom(steps, damping, form))[0][:, :-1] - exact).norm().item()
        for steps in (30, 40)
    ]
    assert (errors[1] / errors[0]) ** 0.1 == pytest.approx(1 - damping + 0.8 * damping, rel=1e-3)


def test_the_neumann_form_holds_one_evaluation_whatever_its_steps():
    case = dense(batch=8, n=32)
    x = case.x.requires_grad_()

    def held(adjoint):
        return activation_bytes(
            lambda: poise.fixed_point(case.f, case.z0, x, adjoint=adjoint, check=False).state, [x, *case.parameters]
        )

    assert held(Phantom(40, form="neumann")) == held(Phantom(2, form="neumann")) < held(Phantom(40)) / 5


def test_jacobian_free_is_one_step():
    case = dense()
    x = case.x.detach().requires_grad_()
    image = case.f(case.solution(), x)
    expected = torch.autograd.grad((flatten(image) * weights_of(case)).sum(), [x, *case.parameters])
    assert_close(gradients(case, Anderson(**TIGHT), JacobianFree()), expected, 1e-8)
    assert_close(gradients(case, Anderson(**TIGHT), Phantom(steps=1)), expected, 1e-8)


SMALL = {
    "dense": lambda: dense(2, 3),
    "attention": lambda: PROBLEMS["attention"](1, 3, 4),
    "conv": lambda: PROBLEMS["conv"](1, 2, 2),
    "pair": lambda: PROBLEMS["pair"](2, 2, 1),
}


def as_function(case, adjoint):
    """The solve as a function of its input and the parameters, for gradcheck."""

    def solve(x, *parameters):
        solution = poise.fixed_point(
            case.f, case.z0, x, solver=Anderson(**TIGHT), adjoint=adjoint, parameters=case.parameters, check=False
        )
        return flatten(solution.state)

    return solve, (case.x.detach().requires_grad_(), *case.parameters)


@pytest.mark.parametrize("problem", SMALL)
def test_gradcheck(problem):
    solve, inputs = as_function(SMALL[problem](), ADJOINTS["implicit"])
    assert torch.autograd.gradcheck(solve, inputs, fast_mode=problem != "dense")


@pytest.mark.parametrize("linear", [GMRES(rtol=1e-13), Anderson(rtol=1e-13)])
@pytest.mark.parametrize("problem", SMALL)
def test_gradgradcheck(problem, linear):
    solve, inputs = as_function(SMALL[problem](), Implicit(linear))
    assert torch.autograd.gradgradcheck(solve, inputs, atol=1e-5, fast_mode=problem != "dense")


def test_third_derivative():
    """z = a z / 2 + sin(z) / 4 + x in one dimension, against nested finite differences of the second derivative."""

    def second(x):
        x = x.requires_grad_()
        z = poise.fixed_point(
            lambda z, x: torch.sin(z) / 4 + x, torch.zeros(1, 1).double(), x, solver=Anderson(**TIGHT),
            adjoint=ADJOINTS["implicit"],
        ).state  # fmt: skip
        (first,) = torch.autograd.grad(z.sum(), x, create_graph=True)
        (other,) = torch.autograd.grad(first.sum(), x, create_graph=True)
        return other, x

    x = torch.tensor([[0.7]], dtype=torch.float64)
    other, leaf = second(x.clone())
    (third,) = torch.autograd.grad(other.sum(), leaf)
    h = 1e-5
    expected = (second(x + h)[0] - second(x - h)[0]) / (2 * h)
    assert torch.allclose(third, expected, rtol=1e-5)


def test_a_second_derivative_through_what_nobody_named_is_refused():
    weight = (0.3 * torch.eye(3).double()).requires_grad_()
    x = torch.ones(2, 3).double().requires_grad_()
    solution = poise.fixed_point(lambda z, x: torch.tanh(z @ weight + x), torch.zeros(2, 3).double(), x)
    (first,) = torch.autograd.grad(solution.state.sum(), x, retain_graph=True)  # the first order needs no name
    assert first.abs().sum() > 0
    with pytest.raises(RuntimeError, match=r"closes over 1 tensors that nobody named.*parameters="):
        torch.autograd.grad(solution.state.sum(), x, create_graph=True)


def test_closures_get_their_first_derivative():
    """Also non-leaf tensors that the cell closes over: the gradient goes on into the graph that made them."""
    case = dense()
    raw = case.parameters[0].detach().clone().requires_grad_()
    weight = raw * 1.0
    solution = poise.fixed_point(
        lambda z, x: torch.tanh(z @ weight.T + x), case.z0, case.x, solver=Anderson(**TIGHT),
        adjoint=ADJOINTS["implicit"],
    )  # fmt: skip
    (found,) = torch.autograd.grad((solution.state * weights_of(case)).sum(), raw)
    assert_close([found], [dense_gradients(case, weights_of(case))[1]], 1e-8)


@pytest.mark.parametrize("name", ADJOINTS)
def test_same_state_with_and_without_gradients(name):
    case = dense()
    solver = dataclasses.replace(OWN_SOLVER.get(name, Anderson()), rtol=1e-3)
    x = case.x.detach().requires_grad_()
    with_graph = poise.fixed_point(case.f, case.z0, x, solver=solver, adjoint=ADJOINTS[name]).state
    with torch.no_grad():
        without = poise.fixed_point(case.f, case.z0, x, solver=solver, adjoint=ADJOINTS[name]).state
    assert torch.equal(with_graph.detach(), without) and with_graph.requires_grad and not without.requires_grad


@pytest.mark.parametrize("name", ADJOINTS)
def test_an_empty_batch_has_an_empty_gradient(name):
    """Some process of several may be left without samples."""
    case = dense(batch=0)
    x = case.x.detach().requires_grad_()
    solver = OWN_SOLVER.get(name, Anderson())
    state = poise.fixed_point(case.f, case.z0, x, solver=solver, adjoint=ADJOINTS[name]).state
    found = torch.autograd.grad(state.sum(), [x, *case.parameters])
    assert found[0].shape == x.shape and (found[1] == 0).all()


@pytest.mark.parametrize("name", ADJOINTS)
def test_is_a_value(name):
    assert pickle.loads(pickle.dumps(ADJOINTS[name])) == ADJOINTS[name]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Phantom(steps=0),
        lambda: Phantom(damping=0.0),
        lambda: Phantom(form="x"),
        lambda: Neumann(damping=0.0),
        lambda: Reversible(rtol=0.0),
        lambda: Phantom(steps=1, form="neumann"),
    ],
)
def test_refuses_options_that_mean_nothing(make):
    with pytest.raises(ValueError, match="pass"):
        make()
