"""What a diagnosis holds, and how it prints."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from poise.fixed_point.checks import Finding, Look
from poise.fixed_point.solution import Solution
from poise.nn.independence import Independence

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
    dtype: torch.dtype  # the narrowest in which the cell computes
    independence: Independence = Independence()

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
        rows = [("residual", _curve(self.residuals)), ("statuses", counted(self.solution))]
        if dynamics.contraction is None:
            rows.append(("contraction", unmeasured))
        else:
            rows.append(
                ("contraction", f"{dynamics.contraction:.3g} an evaluation of plain iteration (below 1: shrinks)")
            )
        if dynamics.radius is not None and math.isnan(dynamics.radius):
            rows.append(("radius", "not measured, since the Jacobian is not finite"))
        elif dynamics.radius is not None:
            doubt = "" if dynamics.resolved else f", known to {dynamics.radius_residual:.0%} only"
            rows.append(
                ("radius", f"{dynamics.radius:.3g}, the Jacobian's largest |eigenvalue|{doubt} (below 1: contracts)")
            )
        if self.independence.agreement is not None:
            rows.append(("starts", _independence(self.independence)))
        if look.repetition is not None:
            rows.append(("repeats", "exactly" if look.repetition == 0 else f"to {look.repetition:.0e}"))
        if look.coupling is not None:
            rows.append(("samples", f"one alone differs by {look.coupling:.0e} from itself in the batch"))
        if look.uses_context is not None:
            rows.append(("context", "used" if look.uses_context else "ignored"))
        where = "a tighter solve in float64" if accuracy.wider else "a tighter solve"
        if accuracy.state is None:
            failed = accuracy.reference is not None
            rows.append(("error", "not measured, since the tighter solve does not converge" if failed else unmeasured))
        elif accuracy.gradient is None:
            rows.append(
                ("error", f"state {accuracy.state:.0e} against {where}, whose backward gives no gradient to compare")
            )
        else:
            rows.append(("error", f"state {accuracy.state:.0e}, gradient {accuracy.gradient:.0e}, against {where}"))
        if accuracy.floor is not None:
            asked = "no tolerance" if self.solution.rtol is None else f"{self.solution.rtol:g}"
            rows.append(
                ("floor", f"residuals end near {accuracy.floor:.0e} in {dtype_name(self.dtype)}; asked: {asked}")
            )
        made = f"{cost.evaluations} evaluations ({cost.rows} rows)"
        if cost.forward_seconds:
            share = f"{cost.share(len(self.solution.status)):.0%}"
            made += f" in {_time(cost.forward_seconds)}, {share} of it in the cell ({_time(cost.cell_seconds)} a batch)"
        rows.append(("cost", made))
        if cost.products:
            ended = "" if self.backward is None else f"; {counted(self.backward)}"
            rows.append(
                ("backward", f"{cost.products} products or evaluations in {_time(cost.backward_seconds)}{ended}")
            )
        return rows


def _independence(found: Independence) -> str:
    parts = [f"{found.agreement:.0%} from N(0, 1) end at the same state"]
    parts += [] if found.cosine is None else [f"cosine {found.cosine:.3f}"]
    parts += [] if found.change is None else [f"as long again moves it by {found.change:.0e}"]
    return "; ".join(parts)


def largest_residuals(solution: Solution) -> list[float]:
    """Return the largest residual of every evaluation over the samples still live, NaN where there is none."""
    table = solution.trace
    largest = table.nan_to_num(nan=-1.0, posinf=float("inf")).amax(dim=1) if table.numel() else table.sum(dim=1)
    return [value if value >= 0 else float("nan") for value in largest.tolist()]


def _curve(values: list[float]) -> str:
    if not values:
        return "none"
    last = len(values) - 1
    places = sorted({round(i * last / (POINTS - 1)) for i in range(POINTS)}) if last else [0]
    numbers = " ".join(f"{values[place]:.0e}" for place in places)
    return f"{numbers} at evaluation {' '.join(str(place + 1) for place in places)}"


def counted(solution: Solution) -> str:
    """Return the statuses in words."""
    return ", ".join(f"{number} {name}" for name, number in solution.counts().items())


def _time(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def dtype_name(dtype: torch.dtype) -> str:
    """Return a precision's plain name."""
    return str(dtype).removeprefix("torch.")
