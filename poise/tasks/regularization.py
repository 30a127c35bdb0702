"""What a step of training does beside the task's own loss: the budget it solves with, and the Jacobian penalty."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from poise.configs.base import PretrainingConfig, RegularizationConfig
from poise.configs.errors import ConfigError
from poise.fixed_point import Adjoint, Picard, Solution, Solver, Unrolled
from poise.fixed_point.tree import tree_map
from poise.nn import Equilibrium, jacobian_penalty, jittered, spectral_radius
from poise.tasks.solving import equilibria


@dataclass(frozen=True)
class Solved:
    """An equilibrium that a layer found; `residual` and `steps` (batch,)."""

    layer: Equilibrium
    state: Any
    context: Any
    residual: Tensor
    steps: Tensor


@contextmanager
def observed(model: nn.Module, samples: int | None = None) -> Iterator[list[Solved]]:
    """Collect every solve of a model's equilibria, in order.

    `samples`: of each layer only the first solve, and of that the first so many samples, so that little is held.
    """
    found: list[Solved] = []
    layers = list(equilibria(model))
    before = [layer.on_solution for layer in layers]

    def keep(layer: Equilibrium, solution: Solution) -> None:
        state, context, ends = solution.state, solution.context, (solution.residual, solution.steps)
        if samples is not None:
            if any(one.layer is layer for one in found):
                return
            few = slice(samples)  # copied, since a part of a tensor holds all of it
            state, context, ends = tree_map(lambda x: x[few].detach().clone(), (state, context, ends))
        found.append(Solved(layer, state, context, *ends))

    for layer in layers:
        layer.on_solution = partial(keep, layer)
    try:
        yield found
    finally:
        for layer, callback in zip(layers, before, strict=True):
            layer.on_solution = callback


@contextmanager
def solving(layer: Equilibrium, solver: Solver, adjoint: Adjoint | None = None) -> Iterator[None]:
    """Give a layer other means for a while, in both modes; what they miss is looked at there, and not warned of."""
    before = (layer.solver, layer.eval_solver, layer.adjoint, layer.on_failure)
    layer.solver = layer.eval_solver = solver
    layer.adjoint = adjoint or layer.adjoint
    layer.on_failure = "ignore"
    try:
        yield
    finally:
        layer.solver, layer.eval_solver, layer.adjoint, layer.on_failure = before


@contextmanager
def step_of_training(
    model: nn.Module,
    regularization: RegularizationConfig,
    pretraining: PretrainingConfig,
    step: int,
    generator: torch.Generator,
) -> Iterator[None]:
    """Solve as the settings want it at this step: shallow at first, later within a budget that may be drawn anew."""
    layers = list(equilibria(model))
    before = [(layer.solver, layer.adjoint) for layer in layers]
    for layer in layers:
        if pretraining.covers(step):
            layer.solver = Picard(rtol=None, max_steps=pretraining.layers, scope=layer.solver.scope)
            layer.adjoint = Unrolled()
        elif regularization.jitter:
            layer.solver = jittered(layer.solver, regularization.jitter, generator)
    try:
        yield
    finally:
        for layer, (solver, adjoint) in zip(layers, before, strict=True):
            layer.solver, layer.adjoint = solver, adjoint


def check_jitter(model: nn.Module, regularization: RegularizationConfig) -> None:
    """Raise a ConfigError where the budget that is drawn could leave no evaluation."""
    for layer in equilibria(model):
        if regularization.jitter >= layer.solver.max_steps:
            raise ConfigError(
                f"regularization.jitter is {regularization.jitter} and solver.max_steps {layer.solver.max_steps}, "
                "which may leave no evaluation; pass a jitter below the budget."
            )


def penalty(
    solves: list[Solved], regularization: RegularizationConfig, progress: float, generator: torch.Generator
) -> Tensor | None:
    """Return the mean Jacobian penalty of a step's solves, or None at a step that adds none.

    `progress`: which part of the run's steps is done. The states are constants, as published; the vectors are drawn
    with PyTorch's own generator, which a step seeds.
    """
    drawn = float(torch.rand((), generator=generator)) < regularization.jacobian_frequency
    if not (drawn and regularization.weight_at(progress) and solves):
        return None
    few = slice(regularization.jacobian_samples)
    found = []
    for one in solves:
        state, context = tree_map(lambda x: x[few], (tree_map(Tensor.detach, one.state), one.context))
        found.append(jacobian_penalty(one.layer.cell, state, context))
    return torch.stack(found).mean()


def largest_radius(solves: list[Solved], seed: int) -> float:
    """Return the largest spectral radius over all samples of some solves; `seed`: of the vectors it begins with."""
    radii = []
    for one in solves:
        generator = torch.Generator(one.residual.device).manual_seed(seed)
        radii.append(spectral_radius(one.layer.cell, one.state, one.context, generator=generator).radius.max())
    return float(torch.stack(radii).max())
