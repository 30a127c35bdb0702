"""What a step of training does beside the task's own loss: the budget it solves with, and the Jacobian penalty."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

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
    """A solve that a layer made."""

    layer: Equilibrium
    solution: Solution


@contextmanager
def observed(model: nn.Module) -> Iterator[list[Solved]]:
    """Collect every solve of a model's equilibria, in order."""
    found: list[Solved] = []
    layers = list(equilibria(model))

    def keep(layer: Equilibrium, solution: Solution) -> None:
        found.append(Solved(layer, solution))

    for layer in layers:
        layer.on_solution = partial(keep, layer)
    try:
        yield found
    finally:
        for layer in layers:
            layer.on_solution = None


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
        if step < pretraining.steps:
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


def penalty(solves: list[Solved], regularization: RegularizationConfig, generator: torch.Generator) -> Tensor | None:
    """Return the mean Jacobian penalty of a step's solves, or None at a step that adds none.

    The states are constants, as published; the vectors are drawn with PyTorch's own generator, which a step seeds.
    """
    drawn = float(torch.rand((), generator=generator)) < regularization.jacobian_frequency
    if not (drawn and regularization.jacobian_weight and solves):
        return None
    found = [
        jacobian_penalty(one.layer.cell, tree_map(Tensor.detach, one.solution.state), one.solution.context)
        for one in solves
    ]
    return torch.stack(found).mean()


def largest_radius(solves: list[Solved], samples: int) -> float:
    """Return the largest spectral radius over the first samples of some solves."""
    radii = []
    for one in solves:
        few = tree_map(lambda tensor: tensor[:samples].detach(), (one.solution.state, one.solution.context))
        radii.append(spectral_radius(one.layer.cell, *few).radius.max())
    return float(torch.stack(radii).max())
