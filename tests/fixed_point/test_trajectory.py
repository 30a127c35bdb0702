"""States on the way to the solution, and a callback that sees every evaluation."""

import pytest
import torch

import poise
from poise import Anderson, Implicit, Picard, Unrolled
from poise.fixed_point.tally import Counters
from tests.contracts.problems import PROBLEMS, dense, flatten, linear


def iterates(case, numbers):
    z, found = case.z0, {}
    for number in range(1, max(numbers) + 1):
        z = case.f(z, case.x)
        found[number] = z
    return [found[number] for number in numbers]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("rtol", [None, 0.0])
def test_recorded_states_are_the_iterates(problem, rtol):
    case = PROBLEMS[problem]()
    solution = poise.fixed_point(
        case.f, case.z0, case.x, solver=Picard(rtol=rtol, max_steps=9), record=(7, 1, 4), on_failure="ignore"
    )
    for state, expected in zip(solution.trajectory, iterates(case, (1, 4, 7)), strict=True):
        assert torch.allclose(flatten(state), flatten(expected), rtol=0, atol=1e-14)


@pytest.mark.parametrize("adjoint", [Implicit(), Unrolled()])
def test_every_chosen_evaluation_has_a_state_and_finished_samples_are_at_their_end(adjoint):
    case = linear(torch.tensor([0.1, 0.5, 0.95]))
    x = case.x.detach().requires_grad_()
    solution = poise.fixed_point(
        case.f, case.z0, x, solver=Picard(rtol=1e-4, max_steps=400), adjoint=adjoint, record=(2, 50, 390)
    )
    assert solution.rows < 3 * solution.evaluations < 3 * 390  # samples have left, and the solve has ended before
    early, middle, late = solution.trajectory
    for sample in range(3):
        for state, number in ((early, 2), (middle, 50), (late, 390)):
            reached = min(number, int(solution.steps[sample]))
            expected = iterates(case, [reached])[0][sample]
            assert torch.allclose(state[sample], expected, rtol=0, atol=1e-12)
    assert late is solution.state


def test_a_recorded_state_has_the_gradient_of_one_step():
    case = dense()
    x = case.x.detach().requires_grad_()
    solution = poise.fixed_point(case.f, case.z0, x, record=(3,), solver=Picard(rtol=1e-8, max_steps=300))
    found = torch.autograd.grad(solution.trajectory[0].sum(), [x, *case.parameters])
    before = iterates(case, [2])[0].detach()
    expected = torch.autograd.grad(case.f(before, x).sum(), [x, *case.parameters])
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-12)


def test_under_unrolled_a_recorded_state_has_the_gradient_of_the_whole_solve():
    case = dense()
    x = case.x.detach().requires_grad_()
    solver = Picard(rtol=1e-8, max_steps=300)
    solution = poise.fixed_point(case.f, case.z0, x, record=(3,), solver=solver, adjoint=Unrolled())
    (found,) = torch.autograd.grad(solution.trajectory[0].sum(), x)
    z = case.z0
    for _ in range(3):
        z = case.f(z, x)
    assert torch.allclose(found, torch.autograd.grad(z.sum(), x)[0], rtol=1e-12)


def test_record_everything():
    case = dense()
    solution = poise.fixed_point(case.f, case.z0, case.x, record=True)
    assert len(solution.trajectory) == solution.evaluations
    assert torch.equal(
        solution.trajectory[-1][int(solution.steps.argmax())], solution.state[int(solution.steps.argmax())]
    )
    assert poise.fixed_point(case.f, case.z0, case.x).trajectory == ()


@pytest.mark.parametrize("solver", [Picard(), Anderson(), Picard(rtol=None, max_steps=6), Anderson(scope="prefix")])
def test_the_callback_sees_every_evaluation(solver):
    case = PROBLEMS["attention"]()
    steps = []
    solution = poise.fixed_point(case.f, case.z0, case.x, solver=solver, callback=steps.append)
    assert [step.number for step in steps] == list(range(1, solution.evaluations + 1))
    assert sum(len(step.samples) for step in steps) == solution.rows
    if solver.rtol is not None:
        trace = solution.trace
        for step, row in zip(steps, trace, strict=True):
            assert torch.equal(step.residual, row[step.samples])
    last = steps[-1]
    assert torch.equal(last.state, solution.state[last.samples])


def test_a_layer_records():
    torch.manual_seed(0)
    block = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh())
    torch.nn.init.orthogonal_(block[0].weight, gain=0.8)
    layer = poise.Equilibrium(poise.nn.inject(block))
    seen = []
    solution = layer.solve(torch.randn(4, 8), record=(2, 5), callback=seen.append)
    assert len(solution.trajectory) == 2 and len(seen) == solution.evaluations
    assert solution.trajectory[0].requires_grad


@pytest.mark.parametrize("record", [(0,), (101,), (2.5,), (True,)])
def test_evaluations_that_no_solve_reaches_are_refused(record):
    with pytest.raises(ValueError, match="record=.*; pass whole numbers from 1 to the solver's max_steps, 100"):
        poise.fixed_point(lambda z: 0.5 * z, torch.ones(1, 1), record=record)


def test_reversible_records_the_last_iterate_of_each_pair():
    case = dense()
    solver = Picard(damping=0.5, rtol=None, max_steps=6)
    seen = []
    solution = poise.fixed_point(
        case.f, case.z0, case.x, solver=solver, adjoint=poise.Reversible(), record=(2,), callback=seen.append
    )
    z, before = case.z0, case.z0
    z, before = 0.5 * (before + case.f(z, case.x)), z
    assert torch.allclose(solution.trajectory[0], case.f(z, case.x), rtol=0, atol=1e-14) and len(seen) == 6


def test_recorded_states_are_no_backward_solves():
    case = dense()
    counters = Counters()
    x = case.x.detach().requires_grad_()
    poise.fixed_point(case.f, case.z0, x, record=True, counters=counters)
    assert counters.backward.solves == 0
