"""What a diagnosis holds, what follows from it in words, and how it prints."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from poise.fixed_point.adjoints import Adjoint, Implicit
from poise.fixed_point.checks import Finding, Look
from poise.fixed_point.solution import REMEDY, Solution, Status
from poise.fixed_point.solvers import Solver

# A gradient or a state further off than this is worth a word.
LARGE_ERROR = 0.1
POINTS = 6  # of the residual curve that are printed


@dataclass(frozen=True)
class Dynamics:
    """How the cell moves states near the slowest samples' solutions; None is what was not measured."""

    contraction: float | None = None  # factor by which plain iteration shrinks its step, each evaluation; the largest
    radius: float | None = None  # spectral radius, the largest
    radius_residual: float = 0.0  # relative residual of its eigenpair

    @property
    def resolved(self) -> bool:
        """Whether the spectral radius can be believed."""
        return self.radius_residual <= 0.05


@dataclass(frozen=True)
class Accuracy:
    """Relative differences from a tighter solve; None is what was not measured."""

    state: float | None = None
    gradient: float | None = None
    floor: float | None = None  # residual of the exact state in the cell's own precision
    reference: Solution | None = None
    wider: bool = False  # whether the tighter solve ran in float64 where the layer does not


@dataclass(frozen=True)
class Cost:
    """Evaluations and seconds of one solve, forward and backward."""

    evaluations: int
    rows: int
    products: int = 0  # with the Jacobian, in the backward
    forward_seconds: float = 0.0
    backward_seconds: float = 0.0
    cell_seconds: float = 0.0  # one evaluation of the whole batch

    def share(self, batch: int) -> float:
        """Return the part of the forward's time that the cell takes."""
        spent = self.cell_seconds * self.rows / max(batch, 1)
        return min(1.0, spent / self.forward_seconds) if self.forward_seconds else 0.0


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What `diagnose` found: `findings`, the most important first, and the measures they rest on.

    `print` shows a short table; an empty `findings` is a healthy layer.
    """

    findings: tuple[Finding, ...]
    solution: Solution  # of the layer as it is, without its state
    backward: Solution | None  # its backward solve, where the adjoint has one
    look: Look
    dynamics: Dynamics
    accuracy: Accuracy
    cost: Cost
    dtype: torch.dtype

    @property
    def healthy(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def residuals(self) -> list[float]:
        """The residual of every evaluation, the largest over the samples that were still live."""
        return largest_residuals(self.solution)

    def __repr__(self) -> str:
        return f"Diagnosis({self.summary()})"

    def summary(self) -> str:
        """Return the first line: the most important finding, or that there is none."""
        if self.findings:
            return str(self.findings[0])
        batch, radius, gradient = len(self.solution.status), self.dynamics.radius, self.accuracy.gradient
        parts = [f"all {batch} samples end within {self.cost.evaluations} evaluations"]
        parts += [] if radius is None or not self.dynamics.resolved else [f"the spectral radius is {radius:.2f}"]
        parts += [] if gradient is None else [f"the gradient is off by {gradient:.0e}"]
        return f"healthy: {', '.join(parts)}."

    def __str__(self) -> str:
        lines = [self.summary(), *(f"also {finding}" for finding in self.findings[1:]), ""]
        return "\n".join([*lines, *(f"  {label:<12}{text}" for label, text in self._rows())])

    def _rows(self) -> list[tuple[str, str]]:
        unmeasured = "not measured, since " + (
            "no sample has a finite state" if self.look == Look() else "it means nothing for such a cell"
        )
        dynamics, accuracy, cost, look = self.dynamics, self.accuracy, self.cost, self.look
        rows = [("residual", _curve(self.residuals)), ("statuses", _counts(self.solution))]
        if dynamics.contraction is None:
            rows.append(("contraction", unmeasured))
        else:
            rows.append(
                ("contraction", f"{dynamics.contraction:.3g} an evaluation of plain iteration (below 1: shrinks)")
            )
        if dynamics.radius is not None:
            doubt = "" if dynamics.resolved else f", known to {dynamics.radius_residual:.0%} only"
            rows.append(
                ("radius", f"{dynamics.radius:.3g}, the Jacobian's largest |eigenvalue|{doubt} (below 1: contracts)")
            )
        if look.repetition is not None:
            rows.append(("repeats", "exactly" if look.repetition == 0 else f"to {look.repetition:.0e}"))
        if look.coupling is not None:
            rows.append(("samples", f"one alone differs by {look.coupling:.0e} from itself in the batch"))
        if look.uses_context is not None:
            rows.append(("context", "used" if look.uses_context else "ignored"))
        if accuracy.gradient is not None:
            where = "a tighter solve in float64" if accuracy.wider else "a tighter solve"
            rows.append(("error", f"state {accuracy.state:.0e}, gradient {accuracy.gradient:.0e}, against {where}"))
        else:
            failed = accuracy.reference is not None
            rows.append(("error", "not measured, since the tighter solve does not converge" if failed else unmeasured))
        if accuracy.floor is not None:
            asked = "no tolerance" if self.solution.rtol is None else f"{self.solution.rtol:g}"
            rows.append(
                ("floor", f"residuals end near {accuracy.floor:.0e} in {_dtype_name(self.dtype)}; asked: {asked}")
            )
        made = f"{cost.evaluations} evaluations ({cost.rows} rows)"
        if cost.forward_seconds:
            share = f"{cost.share(len(self.solution.status)):.0%}"
            made += f" in {_time(cost.forward_seconds)}, {share} of it in the cell ({_time(cost.cell_seconds)} a batch)"
        rows.append(("cost", made))
        if cost.products:
            ended = "" if self.backward is None else f"; {_counts(self.backward)}"
            rows.append(
                ("backward", f"{cost.products} products or evaluations in {_time(cost.backward_seconds)}{ended}")
            )
        return rows


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


def findings(case: Case) -> tuple[Finding, ...]:
    """Return what is wrong, causes before their effects."""
    found = [_not_finite(case), case.look.finding, *_forward(case), _backward(case), _accuracy(case)]
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


def _forward(case: Case) -> list[Finding | None]:
    if case.look.finding is not None and case.look.uses_context is None:
        return []  # a cell that is not one map for every sample has no fixed point to speak of
    return [_expansion(case) or _floor(case) or _budget(case)]


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
    if case.dtype != torch.float64:
        wider = torch.float64 if case.dtype == torch.float32 else torch.float32
        advice += f", or run the cell in {_dtype_name(wider)}"
    message = (
        f"rtol={solver.rtol:g} asks for less than {_dtype_name(case.dtype)} gives, whose residuals end near "
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
        message = (
            f"{int(spent.sum())} of {len(spent)} samples end at residuals up to {worst:.1e} after "
            f"max_steps={solver.max_steps}, asked: {solver.rtol:g}; "
            + (f"at this rate about {needed} are needed" if needed else "raise max_steps, or loosen rtol")
        )
    else:
        return None
    return Finding("starved forward budget", message)


def _backward(case: Case) -> Finding | None:
    record, error, adjoint = case.backward, case.accuracy.gradient, case.adjoint
    if record is None or not isinstance(adjoint, Implicit):
        return None
    off = "" if error is None else f", and the gradient is off by {error:.0%}"
    if record.fixed_budget:
        if error is None or error <= LARGE_ERROR or (case.accuracy.state or 0.0) > error:
            return None
        message = f"{adjoint.solver} stops too early{off}; give it more steps or terms, or take GMRES()"
    elif record.ok:
        return None
    else:
        missed = record.failed
        message = (
            f"the backward solve ends {_counts(record)} at a residual of {record.residual[missed].max().item():.1e} "
            f"after {record.evaluations} products (asked: {record.rtol:g}){off}; raise max_steps of {adjoint.solver}"
        )
    return Finding("starved backward budget", message)


def _accuracy(case: Case) -> Finding | None:
    error, reference = case.accuracy.gradient, case.accuracy.reference
    if error is None:
        if reference is None or not case.solution.ok:
            return None
        message = (
            f"a tighter solve from the layer's own solution ends {_counts(reference)} at a residual of "
            f"{reference.residual.max().item():.1e}, so that nothing says how exact state and gradient are; look for "
            "jumps or kinks in the cell"
        )
        return Finding("unconfirmed solution", message)
    if error <= LARGE_ERROR or _backward(case) is not None or not case.solution.ok:
        return None
    if not isinstance(case.adjoint, Implicit):
        message = (
            f"{case.adjoint} leaves the gradient {error:.0%} off here, where the spectral radius is "
            f"{case.dynamics.radius or 0.0:.2f}; take Implicit(), more steps, or a cell that contracts more"
        )
        return Finding("approximate gradient", message)
    if case.solver.rtol is None:
        return None  # the budget has been found short already
    message = (
        f"rtol={case.solver.rtol:g} leaves the state {case.accuracy.state:.1%} and the gradient {error:.0%} off; "
        "tighten rtol of the solver"
    )
    return Finding("loose tolerance", message)


def largest_residuals(solution: Solution) -> list[float]:
    """Return the largest residual of every evaluation over the samples still live, NaN where there is none."""
    table = solution.trace
    largest = table.nan_to_num(nan=-1.0, posinf=float("inf")).amax(dim=1) if table.numel() else table.sum(dim=1)
    return [value if value >= 0 else float("nan") for value in largest.tolist()]


def _evaluations_needed(curve: list[float], worst: float, rtol: float) -> int | None:
    """Return how many evaluations the rate of the curve's second half would take, if it falls."""
    middle = len(curve) // 2
    if middle < 1 or not (0 < rtol < worst < curve[middle] < float("inf")):
        return None
    rate = math.log(worst / curve[middle]) / (len(curve) - middle)
    return len(curve) + math.ceil(math.log(rtol / worst) / rate)


def _curve(values: list[float]) -> str:
    if not values:
        return "none"
    last = len(values) - 1
    places = sorted({round(i * last / (POINTS - 1)) for i in range(POINTS)}) if last else [0]
    numbers = " ".join(f"{values[place]:.0e}" for place in places)
    return f"{numbers} at evaluation {' '.join(str(place + 1) for place in places)}"


def _counts(solution: Solution) -> str:
    return ", ".join(f"{number} {name}" for name, number in solution.counts().items())


def _time(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 1 else f"{1e3 * seconds:.2g} ms"


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _above(value: float) -> float:
    """Round up to one digit."""
    unit = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return math.ceil(value / unit) * unit
