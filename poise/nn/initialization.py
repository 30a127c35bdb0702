"""The loss that trains a learned start of an equilibrium."""

from __future__ import annotations

import torch
from torch import Tensor

from poise.fixed_point.solution import Solution, Status


def initialization_loss(solution: Solution) -> Tensor:
    """Return the mean over samples of |z0 - z*|^2 / |z*|^2, z* being a constant and z0 the start of the solve.

    Trains an `Equilibrium(initializer=...)` without labels: its start approaches the equilibria that the solver finds,
    which saves evaluations and changes no answer. The mean over the parts of a tuple state; samples whose solve
    diverged or met NaN are left out. Under DDP add it to every loss: the initialiser has no other gradient.

    Raises ValueError where the start has no graph, as that of a layer without an initializer, and gradients are wanted.

    Bai, Koltun and Kolter (2022), "Neural Deep Equilibrium Solvers" (initialiser).

    >>> solution = layer.solve(x)
    >>> loss = task(solution.state) + initialization_loss(solution)
    """
    starts, states = (value if isinstance(value, tuple) else (value,) for value in (solution.start, solution.state))
    if torch.is_grad_enabled() and not any(start.requires_grad for start in starts):
        raise ValueError(
            "the solve did not start from an initializer's proposal, so its initialization_loss trains nothing; give "
            "the Equilibrium an initializer and pass no z0, or measure under torch.no_grad()."
        )
    found = (solution.status != Status.DIVERGED) & (solution.status != Status.NONFINITE)
    total = torch.zeros((), device=found.device)
    for start, state in zip(starts, states, strict=True):
        start = start.flatten(1) if start.dim() > 1 else start.unsqueeze(1)
        # Where nothing was found the start is its own target: zero times NaN would reach its gradient.
        target = torch.where(found.unsqueeze(1), state.detach().reshape(start.shape), start.detach())
        distance, size = (start - target).abs().square().sum(dim=1), target.abs().square().sum(dim=1)
        relative = torch.where(found, distance / size.clamp_min(torch.finfo(size.dtype).eps), 0.0)
        total = total + relative.sum() / (len(starts) * found.sum().clamp_min(1))
    return total
