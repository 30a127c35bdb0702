"""What training adds to the loss of a task, and to the budget of a solve, so that equilibria stay easy to find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from poise.fixed_point.options import check_kind, require
from poise.fixed_point.solvers import Solver
from poise.nn.jacobian import linearise

AnySolver = TypeVar("AnySolver", bound=Solver)


def jacobian_penalty(
    cell: Callable[..., Any],
    state: Any,
    context: Any = None,
    *,
    draws: int = 1,
    generator: torch.Generator | None = None,
    valid: Any = None,
) -> Tensor:
    """Return an unbiased estimate of |J|_F^2 / d, the mean over the batch, J being the cell's Jacobian at the state.

    |e^T J|^2 / d with e ~ N(0, I), averaged over `draws` (Hutchinson); d is the number of entries of a sample's state.
    `state`: a tensor (batch, ...) or a tuple of them. `valid`: a mask as in `fixed_point`; J and d are then those of
    the entries inside. `generator`: the source of e, on the state's device (default: PyTorch's own).

    Differentiable in the cell's parameters and the context. A detached state is a constant, as in the paper; where the
    state is attached, the gradient passes through it as well, in the same backward solve as the task's loss.

    Bai, Koltun and Kolter (2021), "Stabilizing Equilibrium Models by Jacobian Regularization".

    >>> solution = layer.solve(x)
    >>> loss = task(solution.state) + 0.5 * jacobian_penalty(layer.cell, solution.state.detach(), solution.context)
    """
    check_kind("jacobian_penalty", "draws", draws, "int")
    if draws < 1:
        raise ValueError(f"jacobian_penalty(draws={draws}) measures nothing; pass at least 1.")
    recorded = torch.is_grad_enabled()
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        at = linearise(cell, state, context, valid, attached=recorded)
        penalty = at.z.new_zeros(())
        for _ in range(draws):
            noise = torch.randn(at.z.shape, generator=generator, dtype=at.z.dtype, device=at.z.device)
            squares = at.product(noise, create_graph=recorded).square().sum(dim=(1, 2))
            penalty = penalty + (squares / at.entries.clamp_min(1)).sum() / (draws * max(len(squares), 1))
    return penalty if recorded else penalty.detach()


def trajectory_correction(loss: Callable[[Any], Tensor], states: Sequence[Any], gamma: float = 0.8) -> Tensor:
    """Return the sum over i of gamma^(n - 1 - i) loss(z_i) for n states on the way to the equilibrium, the last whole.

    Fixed-point correction: what a solve passes through is pulled towards the answer, so that fewer evaluations come
    closer. `states`: in the order of the solve, each attached to the graph by its own gradient (one step, usually).

    Bai, Geng, Savani and Kolter (2022), "Deep Equilibrium Optical Flow Estimation" (fixed-point correction).
    """
    check_kind("trajectory_correction", "gamma", gamma, "float")
    if not 0 < gamma <= 1:
        raise ValueError(f"trajectory_correction(gamma={gamma}) is no weight; pass a number in (0, 1].")
    if not states:
        raise ValueError("trajectory_correction was given no state; pass those that the solve recorded.")
    weighted = [gamma ** (len(states) - 1 - i) * loss(state) for i, state in enumerate(states)]
    return torch.stack(weighted).sum(dim=0)


def jittered(solver: AnySolver, delta: int, generator: torch.Generator | None = None) -> AnySolver:
    """Return the solver with a budget drawn uniformly from max_steps - delta .. max_steps + delta.

    Trained with a budget that varies, a cell does not learn to end well at one number of evaluations only. `generator`:
    on the CPU (default: PyTorch's own); processes that shall agree share its seed.

    Used, with delta 2, in the experiments of Bai, Koltun and Kolter (2021).

    >>> layer.solver = jittered(Picard(rtol=None, max_steps=12), 2, generator)  # before every step of training
    """
    require("solver", solver, Solver, "Anderson(rtol=1e-4)")
    check_kind("jittered", "delta", delta, "int")
    if not 0 <= delta < solver.max_steps:
        raise ValueError(
            f"jittered(delta={delta}) may leave no evaluation of max_steps={solver.max_steps}; "
            "pass a number of at least 0 and below it."
        )
    change = int(torch.randint(-delta, delta + 1, (), generator=generator))
    return replace(solver, max_steps=solver.max_steps + change)
