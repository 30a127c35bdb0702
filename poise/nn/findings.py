"""What follows from the measures of a layer, in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from poise.fixed_point.adjoints import Adjoint, Implicit
from poise.fixed_point.checks import Finding, Look
from poise.fixed_point.linear import GMRES
from poise.fixed_point.solution import REMEDY, Solution, Status
from poise.fixed_point.solvers import Solver
from poise.nn.diagnosis import Accuracy, Dynamics, counted, dtype_name, largest_residuals
from poise.nn.independence import Independence
from poise.nn.precision import HALVES

# A gradient or a state further off than this is worth a word.
LARGE_ERROR = 0.1
# Starts that lead elsewhere in more than a tenth of solves are worth a word.
PATHS_AGREE = 0.9
# More budget is no advice where so many times as much would be needed.
HOPELESS = 10


@dataclass(frozen=True)
class Case:
    """Everything that findings are read off."""

    name: str  # of the cell
    solver: Solver
    adjoint: Adjoint
    solution: Solution
    backward: Solution | None
    look: Look
    dynamics: Dynamics
    accuracy: Accuracy
    dtype: torch.dtype
    bad_inputs: tuple[int, ...] = ()  # samples
    bad_weights: tuple[str, ...] = ()  # names
    autocast: bool = False  # whether the caller's was on
    independence: Independence = Independence()


def findings(case: Case) -> tuple[Finding, ...]:
    """Return what is wrong, causes before their effects."""
    found = [_not_finite(case), case.look.finding, _forward(case), _backward(case), _accuracy(case), _paths(case)]
    return tuple(finding for finding in found if finding is not None)


def _not_finite(case: Case) -> Finding | None:
    status, batch = case.solution.status, len(case.solution.status)
    if case.bad_inputs:
        first, number = case.bad_inputs[0], len(case.bad_inputs)
        message = f"{number} of {batch} samples hold NaN or infinity, the first of them sample {first}; clean the data"
        return Finding("non-finite inputs", message)
    if case.bad_weights:
        return Finding("non-finite weights", f"{case.bad_weights[0]} holds NaN or infinity; load or train it anew")
    number = int((status == Status.NONFINITE).sum())
    if not number:
        return None
    message = (
        f"the cell {case.name} returns NaN or infinity for {number} of {batch} samples whose inputs are finite; look "
        "at its divisions, logarithms and roots"
    )
    return Finding("non-finite cell", message)


def _forward(case: Case) -> Finding | None:
    if case.look.finding is not None and case.look.uses_context is None:
        return None  # a cell that is not one map for every sample has no fixed point to speak of
    return _expansion(case) or _floor(case) or _budget(case)


def _expansion(case: Case) -> Finding | None:
    solution, dynamics = case.solution, case.dynamics
    missed, batch = int(solution.failed.sum()), len(solution.status)
    radius, rate = dynamics.radius, dynamics.contraction
    if radius is None or rate is None:
        return None
    if radius >= 1 and (dynamics.resolved or missed):
        grows = f"the spectral radius of its Jacobian is {radius:.3g}, where below 1 it contracts"
    elif missed and rate >= 1:
        grows = f"plain iteration does not settle (its steps change by {rate:.3g} an evaluation)"
    elif (solution.status == Status.DIVERGED).any():
        message = f"{case.solver} diverges although the cell contracts; take Anderson(), or less damping"
        return Finding("diverging solver", message)
    else:
        return None
    if missed:
        outcome = f"and {missed} of {batch} samples are not solved"
    else:
        outcome = "and plain iteration would leave the fixed points that the solver finds"
    message = f"the cell {case.name} expands: {grows}, {outcome}; {REMEDY[Status.DIVERGED]}"
    return Finding("expansive cell", message)


def _floor(case: Case) -> Finding | None:
    solver, floor = case.solver, case.accuracy.floor
    stalled = int((case.solution.status == Status.STALLED).sum())
    below = solver.rtol is not None and solver.atol == 0 and floor is not None and solver.rtol < floor
    if not stalled and not below:
        return None
    reached = case.solution.residual.max().item() if floor is None else floor
    advice = f"ask for {_above(5 * reached):.0e} or more"
    if case.autocast and case.dtype in HALVES:
        advice += ", or evaluate the cell outside autocast"
    elif case.dtype != torch.float64:
        wider = torch.float64 if case.dtype == torch.float32 else torch.float32
        advice += f", or run the cell in {dtype_name(wider)}"
    message = (
        f"rtol={solver.rtol:g} asks for less than {dtype_name(case.dtype)} gives, whose residuals end near "
        f"{reached:.0e} here ({stalled} of {len(case.solution.status)} samples stalled); {advice}"
    )
    return Finding("tolerance below the float floor", message)


def _budget(case: Case) -> Finding | None:
    solver, solution, error = case.solver, case.solution, case.accuracy.state
    spent = (solution.status == Status.BUDGET) & solution.failed
    if solver.rtol is None and error is not None and error > LARGE_ERROR:
        message = (
            f"the fixed budget of {solver.max_steps} evaluations ends {error:.0%} from the fixed point; raise max_steps"
        )
    elif solver.rtol is not None and bool(spent.any()):
        worst = solution.residual[spent].max().item()
        needed = _evaluations_needed(largest_residuals(solution), worst, solver.rtol)
        if needed is None or needed > HOPELESS * solver.max_steps:
            advice = "the residual hardly falls any more: take another solver, or loosen rtol"
        else:
            advice = f"at this rate at least {needed} are needed: raise max_steps"
        message = (
            f"{int(spent.sum())} of {len(spent)} samples end at residuals up to {worst:.1e} after "
            f"max_steps={solver.max_steps}, asked: {solver.rtol:g}; {advice}"
        )
    else:
        return None
    return Finding("starved forward budget", message)


def _backward(case: Case) -> Finding | None:
    return _derivative(case) or _singular(case) or _backward_solve(case)


def _derivative(case: Case) -> Finding | None:
    """Report products with the Jacobian that are not finite where the cell is."""
    exact = None if case.accuracy.reference is None else case.accuracy.reference.backward
    number = 0 if exact is None else int((exact.status == Status.NONFINITE).sum())
    if exact is None or not number:
        return None
    message = (
        f"the cell {case.name} is finite at its solutions, but products with its Jacobian are NaN or infinity for "
        f"{number} of {len(exact.status)} samples, which get no gradient; look at roots, norms and divisions of zero, "
        "and at backwards written by hand"
    )
    return Finding("non-finite derivative", message)


def _singular(case: Case) -> Finding | None:
    """Report a linear system that not even the tighter solve gets done with."""
    reference = case.accuracy.reference
    if reference is None or not reference.ok or reference.backward is None or reference.backward.ok:
        return None
    message = (
        f"a tighter backward solve at the solutions ends {_ending(reference.backward)}, so that nothing says how exact "
        f"the gradient is: I - J is singular there, or nearly; {REMEDY[Status.DIVERGED]}"
    )
    return Finding("singular backward", message)


def _backward_solve(case: Case) -> Finding | None:
    """Report what the layer's own backward solve misses."""
    record, error, adjoint = case.backward, case.accuracy.gradient, case.adjoint
    if record is None:
        return None
    if not isinstance(adjoint, Implicit):
        sentence = record.describe("the backward").removesuffix(".")
        return None if record.ok else Finding("inexact backward", sentence)
    off = "" if error is None else f", and the gradient is off by {error:.0%}"
    if ((record.status == Status.DIVERGED) | (record.status == Status.NONFINITE)).any():
        remedy = "run the cell in a wider dtype" if isinstance(adjoint.solver, GMRES) else "take GMRES()"
        return Finding("diverging backward", f"the backward solve ends {_ending(record)}{off}; {remedy}")
    if not record.ok:
        message = f"the backward solve ends {_ending(record)}{off}; raise max_steps of {adjoint.solver}"
    elif not record.fixed_budget or error is None or error <= LARGE_ERROR or (case.accuracy.state or 0.0) > error:
        return None
    else:
        message = f"{adjoint.solver} stops too early{off}; give it more steps or terms, or take GMRES()"
    return Finding("starved backward budget", message)


def _ending(record: Solution) -> str:
    """Return how a backward solve that failed ended."""
    asked = "" if record.rtol is None else f" (asked: {record.rtol:g})"
    residual = record.residual[record.failed].max().item()
    return f"{counted(record)} at a residual of {residual:.1e} after {record.evaluations} products{asked}"


def _paths(case: Case) -> Finding | None:
    """Report solves that end elsewhere when they begin elsewhere, where all of them end at all."""
    found = case.independence
    if not case.solution.ok or case.solution.fixed_budget or found.agreement is None or found.agreement >= PATHS_AGREE:
        return None
    cosine = "" if found.cosine is None else f" (cosine of the states {found.cosine:.2f})"
    message = (
        f"where a solve begins decides where it ends: from N(0, 1) only {found.agreement:.0%} end at the layer's own "
        f"states{cosine}; train from mixed starts, penalise the Jacobian, or raise the budget"
    )
    return Finding("path dependent", message)


def _accuracy(case: Case) -> Finding | None:
    error, reference = case.accuracy.gradient, case.accuracy.reference
    if not case.solution.ok:
        return None
    if reference is not None and not reference.ok:
        message = (
            f"a tighter solve from the layer's own solution ends {counted(reference)} at a residual of "
            f"{reference.residual.max().item():.1e}, so that nothing says how exact state and gradient are; look for "
            "jumps or kinks in the cell"
        )
        return Finding("unconfirmed solution", message)
    if error is None or _backward(case) is not None:
        return None
    error = max(error, case.accuracy.state or 0.0)
    if error <= LARGE_ERROR:
        return None
    if not isinstance(case.adjoint, Implicit):
        message = (
            f"{case.adjoint} leaves the gradient {error:.0%} off here, where the spectral radius is "
            f"{case.dynamics.radius or 0.0:.2f}; take Implicit(), more steps, or a cell that contracts more"
        )
        return Finding("approximate gradient", message)
    if case.solver.rtol is None:
        if _budget(case) is not None:
            return None  # found short already
        message = (
            f"{case.solver.max_steps} evaluations leave the state {case.accuracy.state:.1%} and the gradient "
            f"{case.accuracy.gradient:.0%} off; raise max_steps of the solver"
        )
        return Finding("starved forward budget", message)
    message = (
        f"rtol={case.solver.rtol:g} leaves the state {case.accuracy.state:.1%} and the gradient "
        f"{case.accuracy.gradient:.0%} off; tighten rtol of the solver"
    )
    return Finding("loose tolerance", message)


def _evaluations_needed(curve: list[float], worst: float, rtol: float) -> int | None:
    """Return how many evaluations the rate of the curve's second half would take, if it falls."""
    middle = len(curve) // 2
    if middle < 1 or not (0 < rtol < worst < curve[middle] < float("inf")):
        return None
    rate = math.log(worst / curve[middle]) / (len(curve) - middle)
    return len(curve) + math.ceil(math.log(rtol / worst) / rate)


def _above(value: float) -> float:
    """Round up to one digit."""
    unit = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return math.ceil(value / unit) * unit
