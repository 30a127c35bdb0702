"""Who solves, forward and backward? Both libraries' solvers as contestants on a cell and on its adjoint system."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

import poise
from benchmarks.cells import Problem
from benchmarks.contest import Case, Contestant
from benchmarks.counting import Adjoint, forward_residual
from benchmarks.peers import Torchdeq, torchdeq_solvers
from benchmarks.timing import Call
from poise.fixed_point.linear import as_linear

BUDGET = 300  # evaluations at most

SOLVERS: dict[str, poise.Solver] = {  # the default first
    "Anderson()": poise.Anderson(),
    "Anderson(period=1)": poise.Anderson(period=1),
    "Anderson(history=20)": poise.Anderson(history=20),
    "Anderson(form='type2', history=6)": poise.Anderson(form="type2", history=6),
    "Anderson(form='type2', history=6, check_every=3)": poise.Anderson(form="type2", history=6, check_every=3),
    "Broyden()": poise.Broyden(),
    "NewtonKrylov()": poise.NewtonKrylov(),
    "Picard()": poise.Picard(),
    "Picard(check_every=6)": poise.Picard(check_every=6),
}
LINEAR: dict[str, Any] = {
    "GMRES()": poise.GMRES(),
    "GMRES(restart=100)": poise.GMRES(restart=100),
    "BiCGSTAB()": poise.BiCGSTAB(),
    "Anderson(form='type2', history=6)": poise.Anderson(form="type2", history=6),
    "Anderson(form='type2', history=6, check_every=3)": poise.Anderson(form="type2", history=6, check_every=3),
    "Broyden()": poise.Broyden(),
    "Picard()": poise.Picard(),
    "Picard(check_every=6)": poise.Picard(check_every=6),
}


def forward_contestants(problem: Problem) -> list[Contestant]:
    """Return everyone who solves a problem forward, poise's default first."""

    def ours(solver: poise.Solver) -> Callable[..., Call]:
        def prepare(f: Callable[..., Any], rtol: float, budget: int) -> Call:
            chosen = replace(solver, rtol=rtol, max_steps=budget)
            # A layer looks at its cell once, not at every solve.
            return lambda: (
                poise.fixed_point(f, problem.z0, problem.context, solver=chosen, on_failure="ignore", check=False).state
            )

        return prepare

    def theirs(solver: Torchdeq) -> Callable[..., Call]:
        def prepare(f: Callable[..., Any], rtol: float, budget: int) -> Call:
            return lambda: solver(lambda z: f(z, problem.context), problem.z0, budget, rtol)[0]

        return prepare

    return [
        *(Contestant("poise", name, ours(solver), name == "Anderson()") for name, solver in SOLVERS.items()),
        *(Contestant("torchdeq", name, theirs(peer), kind=peer.kind) for name, peer in torchdeq_solvers().items()),
    ]


def forward_case(problem: Problem, tolerance: float, device: str = "cpu") -> Case:
    """Ask for a state whose residual, evaluated anew in float64, is within the tolerance for the worst sample."""
    residual = forward_residual(problem.to(torch.float64))
    return Case(
        direction="forward",
        name=problem.name,
        f=problem.f,
        error=lambda state: residual(state).max().item(),
        tolerance=tolerance,
        budget=BUDGET,
        state_bytes=problem.state_bytes,
        one_evaluation=lambda: problem.f(problem.z0, problem.context),
        device=device,
    )


def backward_contestants(adjoint: Adjoint) -> list[Contestant]:
    """Return everyone who solves an adjoint system, poise's default first."""

    def ours(solver: Any) -> Callable[..., Call]:
        def prepare(product: Callable[..., Any], rtol: float, budget: int) -> Call:
            chosen = as_linear(replace(solver, rtol=rtol, max_steps=budget))
            return lambda: chosen.solve(product, adjoint.g).fz

        return prepare

    def theirs(solver: Torchdeq) -> Callable[..., Call]:
        # As its implicit gradient does: y = J^T y + g, from zero.
        def prepare(product: Callable[..., Any], rtol: float, budget: int) -> Call:
            return lambda: solver(lambda u: product(u) + adjoint.g, torch.zeros_like(adjoint.g), budget, rtol)[0]

        return prepare

    return [
        *(Contestant("poise", name, ours(solver), name == "GMRES()") for name, solver in LINEAR.items()),
        *(Contestant("torchdeq", name, theirs(peer), kind=peer.kind) for name, peer in torchdeq_solvers().items()),
    ]


def backward_case(problem: Problem, adjoint: Adjoint, tolerance: float, device: str = "cpu") -> Case:
    """Ask for u with |g - u + J^T u| <= tolerance |g|, evaluated in float64, for the worst sample."""
    return Case(
        direction="backward",
        name=problem.name,
        f=adjoint.product,
        error=lambda u: adjoint.residual(u).max().item(),
        tolerance=tolerance,
        budget=BUDGET,
        state_bytes=problem.state_bytes,
        one_evaluation=lambda: adjoint.product(adjoint.g),
        device=device,
    )
