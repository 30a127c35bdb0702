"""What does a training step cost at equal accuracy? Forward, backward and the gradients of input and weights.

The loss is the inner product of the state with fixed N(0, 1) numbers. The oracle is float64: the fixed point, then the
adjoint system solved densely where the state is a short vector and by its Neumann series where it is not, then one
vector-Jacobian product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import poise
from benchmarks.cells import Problem, jacobians, parts, solved
from benchmarks.contest import Case, Contestant
from benchmarks.peers import Torchdeq, torchdeq_solvers
from benchmarks.solves import BUDGET, LINEAR, SOLVERS
from benchmarks.timing import Call
from poise.fixed_point.state import State
from poise.fixed_point.tree import tree_leaves, tree_map

ACCURACY = 1e-4
PHANTOM_STEPS = (20, 60)  # of torchdeq's phantom gradient, whose error falls with them


@dataclass(frozen=True)
class Gradients:
    """Of the context's tensors and the weights, in the order of `Trained.inputs`, and the products they took."""

    values: tuple[Tensor, ...]
    products: int


@dataclass(frozen=True)
class Trained:
    """A problem whose context and weights ask for gradients, and the numbers that its loss weighs the state with."""

    problem: Problem
    weights: tuple[Tensor, ...]  # shaped like the state's parts

    @staticmethod
    def of(problem: Problem) -> Trained:
        """Draw the loss and make leaves of everything."""
        generator = torch.Generator().manual_seed(3)
        drawn = tuple(torch.randn(part.shape, generator=generator).to(part.device) for part in parts(problem.z0))
        return Trained(_leaves(problem), drawn)

    @property
    def inputs(self) -> list[Tensor]:
        """The context's tensors, then the weights."""
        return [leaf for tree in (self.problem.context, self.problem.f) for _, leaf in tree_leaves(tree)]

    def gradients(self, state: State | Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run the backward of the loss."""
        ends = [state] if isinstance(state, Tensor) else list(state)
        return torch.autograd.grad(ends, self.inputs, list(self.weights))

    def oracle(self) -> tuple[Tensor, ...]:
        """Return the gradients in float64."""
        z = solved(self.problem)
        exact = _leaves(self.problem.to(torch.float64))
        start = tree_map(lambda part: part.clone().requires_grad_(), z)
        image = parts(exact.f(start, exact.context))
        right = [weight.double() for weight in self.weights]

        def products(u: Sequence[Tensor], wanted: Iterable[Tensor]) -> tuple[Tensor, ...]:
            return torch.autograd.grad(image, list(wanted), list(u), retain_graph=True)

        if isinstance(z, Tensor) and z.dim() == 2 and z.shape[1] <= 256:
            matrices = torch.eye(z.shape[1], dtype=z.dtype, device=z.device) - jacobians(exact, z).transpose(1, 2)
            u = [torch.linalg.solve(matrices, right[0])]
        else:
            u = right
            for _ in range(300):
                u = [moved + g for moved, g in zip(products(u, parts(start)), right, strict=True)]
        return products(u, (leaf for tree in (exact.context, exact.f) for _, leaf in tree_leaves(tree)))


def _leaves(problem: Problem) -> Problem:
    """Return the problem with its context and its weights as leaves that ask for gradients."""
    asked = tree_map(lambda leaf: leaf.detach().clone().requires_grad_(), (problem.context, problem.f))
    return Problem(problem.name, asked[1], asked[0], problem.z0)


def step_case(trained: Trained, device: str = "cpu") -> Case:
    """Ask for gradients that differ from the oracle's by at most ACCURACY in every tensor, relative to its norm."""
    problem = trained.problem
    oracle = trained.oracle()

    def error(found: Gradients) -> float:
        pairs = zip(found.values, oracle, strict=True)
        return max(((value.double() - exact).norm() / exact.norm()).item() for value, exact in pairs)

    def one_evaluation() -> Any:
        with torch.no_grad():
            return problem.f(problem.z0, problem.context)

    return Case(
        direction="step",
        name=problem.name,
        f=problem.f,
        error=error,
        tolerance=ACCURACY,
        budget=BUDGET,
        state_bytes=problem.state_bytes,
        one_evaluation=one_evaluation,
        device=device,
    )


def poise_step(trained: Trained, forward: str, backward: str, fixed: bool = False) -> Contestant:
    """Return a step by `Implicit`, its solvers by name; both have the contestant's own tolerance, or fixed budget."""
    problem = trained.problem

    def prepare(f: Callable[..., Any], rtol: float, budget: int) -> Call:
        own = None if fixed else rtol
        solver = replace(SOLVERS[forward], rtol=own, max_steps=budget)
        adjoint = poise.Implicit(replace(LINEAR[backward], rtol=own, max_steps=budget))
        named = [leaf for _, leaf in tree_leaves(problem.f)]  # as a layer names its cell's parameters

        def step() -> Gradients:
            solution = poise.fixed_point(
                f, problem.z0, problem.context, solver=solver, adjoint=adjoint, parameters=named,
                on_failure="ignore", check=False,
            )  # fmt: skip
            values = trained.gradients(solution.state)
            return Gradients(values, solution.backward.evaluations if solution.backward else 0)

        return step

    default = (forward, backward) == ("Anderson()", "GMRES()")
    name = f"{forward}, Implicit({backward}){', both of a fixed budget' if fixed else ''}"
    return Contestant("poise", name, prepare, default, fixed=fixed)


def torchdeq_step(trained: Trained, forward: str, backward: str | int, hook: bool = False) -> Contestant:
    """Return a step by torchdeq's layer: `backward` is the solver of its implicit gradient, or its phantom steps.

    `hook`: the implicit gradient by a tensor hook, which evaluates the cell once less and holds one graph less.
    """
    problem = trained.problem
    phantom = backward if isinstance(backward, int) else 0

    def prepare(f: Callable[..., Any], rtol: float, budget: int) -> Call:
        from torchdeq import get_deq

        count = _Products(phantom)
        options: dict[str, Any] = {"grad": phantom}
        if not phantom:
            options = {"hook_ift" if hook else "ift": True, "b_solver": _registered(str(backward), count)}
        layer = get_deq(
            f_solver=_registered(forward), f_tol=rtol, b_tol=rtol, f_stop_mode="rel", b_stop_mode="rel",
            f_max_iter=budget, b_max_iter=budget, **options,
        )  # fmt: skip
        single = isinstance(problem.z0, Tensor)

        def cell(*z: Tensor) -> Any:
            return f(z[0] if single else z, problem.context)

        def step() -> Gradients:
            count.made = phantom
            states, _ = layer(cell, problem.z0)
            values = trained.gradients(states[-1])
            return Gradients(values, count.made)

        return step

    kind = f"grad={phantom}" if phantom else f"{'hook_ift' if hook else 'ift'} by {backward}"
    return Contestant("torchdeq", f"{forward}, {kind}", prepare)


@dataclass
class _Products:
    """The products that torchdeq's backward makes, which it does not report itself."""

    made: int

    def solve(
        self, solver: Callable[..., Any], product: Callable[[Tensor], Tensor], start: Tensor, **options: Any
    ) -> Any:
        def counted(u: Tensor) -> Tensor:
            self.made += 1
            return product(u)

        return solver(counted, start, **options)


def _registered(name: str, count: _Products | None = None) -> str:
    """Register a solver with its options, which torchdeq's layer cannot pass to its backward; return its name there."""
    from torchdeq.solver import get_solver, register_solver

    peer: Torchdeq = torchdeq_solvers()[name]
    solver = partial(get_solver(peer.key), **peer.options)
    if count is not None:
        name, solver = f"{name}, counted", partial(count.solve, solver)
    register_solver(name, solver)
    return name
