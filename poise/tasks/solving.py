"""Solvers and adjoints from settings, and the count of what their solves cost and how they ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from poise.configs.base import AdjointConfig, SolverConfig
from poise.fixed_point import (
    GMRES,
    Adjoint,
    Anderson,
    Broyden,
    Implicit,
    JacobianFree,
    Phantom,
    Picard,
    Solver,
    Unrolled,
)
from poise.fixed_point.tally import Tally
from poise.nn import Equilibrium


def build_solver(config: SolverConfig) -> Solver:
    """Return the solver that the settings describe."""
    loop: dict[str, Any] = {
        "rtol": config.rtol,
        "atol": config.atol,
        "max_steps": config.max_steps,
        "check_every": config.check_every,
        "scope": config.scope,
        "residual": config.residual,
    }
    if config.name == "picard":
        return Picard(damping=config.damping, **loop)
    if config.name == "broyden":
        return Broyden(history=config.history, step_length=config.damping, **loop)
    return Anderson(history=config.history, form=config.form, damping=config.damping, period=config.period, **loop)


def build_adjoint(config: AdjointConfig, solver: SolverConfig) -> Adjoint:
    """Return the adjoint that the settings describe, for solves by a solver."""
    if config.name == "phantom":
        damping = solver.damping if config.damping is None else config.damping
        return Phantom(steps=config.steps, damping=damping, recorded_only=config.recorded_only)
    if config.name == "jacobian_free":
        return JacobianFree()
    if config.name == "unrolled":
        return Unrolled()
    return Implicit(solver=GMRES(rtol=config.rtol, max_steps=config.max_steps), second_order=False)


def equilibria(model: nn.Module) -> Iterator[Equilibrium]:
    """Yield the equilibrium layers of a model."""
    return (module for module in model.modules() if isinstance(module, Equilibrium))


@dataclass
class SolveTotals:
    """Solves of one kind over a whole run: plain numbers, so that a checkpoint can hold them."""

    solves: int = 0
    samples: int = 0
    evaluations: int = 0
    rows: int = 0
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def mean_evaluations(self) -> float:
        """Evaluations a solve."""
        return self.evaluations / self.solves if self.solves else 0.0

    def add(self, tally: Tally) -> None:
        """Add what a layer counted."""
        self.solves += tally.solves
        self.samples += tally.samples
        self.evaluations += tally.evaluations
        self.rows += tally.rows
        for name, number in tally.statuses.items():
            self.statuses[name] = self.statuses.get(name, 0) + number


@dataclass
class CostRecord:
    """What a run has cost so far, kept in its checkpoints so that a resumed run reports the whole."""

    train_seconds: float = 0.0
    train_cpu_seconds: float = 0.0
    forward: SolveTotals = field(default_factory=SolveTotals)
    backward: SolveTotals = field(default_factory=SolveTotals)
    evaluation: SolveTotals = field(default_factory=SolveTotals)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CostRecord:
        """Return the record of a checkpoint."""
        solves = {name: SolveTotals(**values[name]) for name in ("forward", "backward", "evaluation")}
        return cls(values["train_seconds"], values["train_cpu_seconds"], **solves)
