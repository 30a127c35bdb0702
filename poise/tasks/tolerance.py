"""Whether a trained reasoner bears a solver other than its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from poise.configs.base import SolverConfig
from poise.fixed_point import Status
from poise.models import Reasoner
from poise.tasks.regularization import solving
from poise.tasks.solving import build_solver

if TYPE_CHECKING:
    from poise.tasks.reason import ReasonTask

PROBED = 50  # test puzzles on which a changed solver is compared with the trained one
NOTICED = 0.05  # part of them fewer that are solved, or converge, from which a change is said


@torch.no_grad()
def intolerance(task: ReasonTask, trained: SolverConfig) -> str | None:
    """Return a sentence if the network does not bear a solver other than the run's own, by its hardest test puzzles."""
    if not isinstance(task.model, Reasoner) or task.config.eval_solver == trained:
        return None
    task.eval()
    layer = task.model.equilibrium
    given, answer = (part[:PROBED].to(task.device) for part in task.test_sets[-1].batch)
    found = []
    for config in (trained, task.config.eval_solver):
        with solving(layer, build_solver(config)):
            solution = task.model.solve(given)
        solved = (task.model.read(solution.state) == answer).flatten(1).all(dim=1)
        found.append([float(x.double().mean()) for x in (solved, solution.status == Status.CONVERGED)])
    layer.counters.reset()
    (before, ended), (after, ends) = found
    if before - after <= NOTICED and ended - ends <= NOTICED:
        return None
    changed = ", ".join(
        f"{name} {value} in place of {getattr(trained, name)}"
        for name, value in vars(task.config.eval_solver).items()
        if value != getattr(trained, name)
    )
    return (
        f"the network does not bear {changed}: of {len(given)} hard test puzzles it solves {after:.0%} in place of "
        f"{before:.0%}, and {ends:.0%} converge in place of {ended:.0%}; leave the solver as it was trained."
    )
