"""How far is a compiled peer? jaxopt's and optimistix's jitted fixed-point solvers on the same problems, forward.

`python -m benchmarks.jax_solvers [--cells ...] [--rounds N] [--json FILE]`, in an environment that has jax, jaxopt and
optimistix beside torch (none is in any group of this project). One core is used: the process is bound to it.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from benchmarks import command
from benchmarks.cells import Attention, Conv, Dense, Problem, attention, conv, dense256, dense1024, flat, hard, solved
from benchmarks.contest import Contestant, race
from benchmarks.counting import TOLERANCES
from benchmarks.peers import power
from benchmarks.results import markdown
from benchmarks.solver_tables import Content, best
from benchmarks.solves import BUDGET, forward_case, forward_contestants
from benchmarks.timing import CHAIN, Call, alternate

NEEDED = ("jax", "jaxopt", "optimistix")
CELLS = (dense256, attention, conv, hard, dense1024)
RULE = (
    "The rule of benchmarks.solvers, forward: own tolerances loosened until the state just passes in float64 for the "
    "worst sample, medians of alternating timings of processor time on one core. The solvers of jaxopt and optimistix "
    "run under jit and vmap, so that coefficients and stops belong to a sample as in poise (a batch goes on until its "
    "last sample has stopped); compiling is not timed. The maths is the same in float32, the kernels are XLA's on one "
    "side and torch's on the other: the ratio compares the whole, not the solvers alone."
)


@dataclass(frozen=True)
class Answer:
    """A state of jax and the iterations of the slowest sample."""

    state: Any
    evaluations: int


def jax_cell(problem: Problem) -> Callable[[Any, Any], Any]:
    """Return the problem's cell for one sample, in jax with the same weights."""
    import jax
    import jax.numpy as jnp

    cell = problem.f

    def given(weight: torch.Tensor) -> Any:
        return jnp.asarray(weight.numpy())

    def norm(h: Any, axes: tuple[int, ...]) -> Any:
        centred = h - h.mean(axes, keepdims=True)
        return centred * jax.lax.rsqrt((centred**2).mean(axes, keepdims=True) + 1e-5)

    if isinstance(cell, Dense):
        weight = given(cell.weight)
        return lambda z, x: jnp.tanh(weight @ z + x)
    if isinstance(cell, Attention):
        qkv, out, up, down, heads = *map(given, (cell.qkv, cell.out, cell.up, cell.down)), cell.heads

        def block(z: Any, x: Any) -> Any:
            length, width = z.shape
            q, k, v = (z @ qkv.T).reshape(length, 3, heads, width // heads).transpose(1, 2, 0, 3)
            weights = jax.nn.softmax(q @ k.transpose(0, 2, 1) / np.sqrt(width // heads).astype(np.float32), axis=-1)
            h = norm(z + (weights @ v).transpose(1, 0, 2).reshape(length, width) @ out.T + x, (-1,))
            return norm(h + jax.nn.relu(h @ up.T) @ down.T, (-1,))

        return block
    assert isinstance(cell, Conv)
    first, second, groups = given(cell.first), given(cell.second), cell.groups

    def convolved(z: Any, kernel: Any) -> Any:
        return jax.lax.conv_general_dilated(z[None], kernel, (1, 1), "SAME")[0]

    def grouped(h: Any) -> Any:
        return norm(h.reshape(groups, -1, *h.shape[1:]), (1, 2, 3)).reshape(h.shape)

    def residual_block(z: Any, x: Any) -> Any:
        h = jax.nn.relu(grouped(convolved(z, first)))
        return grouped(jax.nn.relu(grouped(convolved(h, second) + x) + z))

    return residual_block


def jax_contestants(problem: Problem) -> list[Contestant]:
    """Return the solvers of jaxopt and optimistix, Anderson at its memory and ridges."""
    import jax
    import jax.numpy as jnp
    import jaxopt
    import optimistix

    f = jax_cell(problem)
    x = jnp.asarray(problem.context.numpy())
    z0 = jnp.zeros_like(x)
    # Tolerances of jaxopt are absolute: those of a residual relative to the state's own size.
    norms = flat(solved(problem)).norm(dim=1)
    size, numbers = norms.mean().item(), flat(problem.z0).shape[1]

    def anderson(history: int, ridge: float) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
        def solve(tol: Any, z: Any, x: Any) -> tuple[Any, Any]:
            solver = jaxopt.AndersonAcceleration(
                f, history_size=history, ridge=ridge, tol=tol * size, maxiter=BUDGET, implicit_diff=True
            )
            found = solver.run(z, x)
            return found.params, found.state.iter_num

        return solve

    def jaxopt_picard(tol: Any, z: Any, x: Any) -> tuple[Any, Any]:
        found = jaxopt.FixedPointIteration(f, tol=tol * size, maxiter=BUDGET).run(z, x)
        return found.params, found.state.iter_num

    def optimistix_picard(tol: Any, z: Any, x: Any) -> tuple[Any, Any]:
        solver = optimistix.FixedPointIteration(rtol=0.0, atol=tol * size / numbers**0.5, norm=optimistix.rms_norm)
        found = optimistix.fixed_point(f, solver, z, x, max_steps=BUDGET, throw=False)
        return found.value, found.stats["num_steps"]

    def prepared(solve: Callable[[Any, Any, Any], tuple[Any, Any]]) -> Callable[..., Call]:
        compiled = jax.jit(jax.vmap(solve, in_axes=(None, 0, 0)))

        def prepare(_: Callable[..., Any], rtol: float, budget: int) -> Call:
            def call() -> Answer:
                state, steps = jax.block_until_ready(compiled(rtol, z0, x))
                return Answer(state, int(steps.max()))

            return call

        return prepare

    solvers = {
        **{
            f"jaxopt AndersonAcceleration(history_size={history}, ridge={power(ridge)})": anderson(history, ridge)
            for history in (5, 10)
            for ridge in (1e-5, 1e-8)
        },
        "jaxopt FixedPointIteration": jaxopt_picard,
        "optimistix FixedPointIteration": optimistix_picard,
    }
    return [Contestant("jax", name, prepared(solve)) for name, solve in solvers.items()]


def one_evaluation(problem: Problem) -> dict[str, float]:
    """Return the seconds of one evaluation on the whole batch, in torch and jitted."""
    import jax
    import jax.numpy as jnp

    cell = jax.jit(jax.vmap(jax_cell(problem)))
    x = jnp.asarray(problem.context.numpy())
    z = jnp.zeros_like(x)
    calls: dict[str, Call] = {
        "torch": lambda: problem.f(problem.z0, problem.context),
        "jax": lambda: jax.block_until_ready(cell(z, x)),
    }
    return {
        name: statistics.median(times)
        for name, times in alternate(calls, 7, chained=dict.fromkeys(calls, CHAIN)).items()
    }


@torch.no_grad()
def measure(names: Collection[str], rounds: int) -> Content:
    """Return one entry a case and solver."""
    entries: list[dict[str, Any]] = []
    cells = []
    for build in CELLS:
        if build.__name__ not in names:
            continue
        problem = build()
        ours = [contestant for contestant in forward_contestants(problem) if contestant.library == "poise"]
        theirs = jax_contestants(problem)
        cells.append({"cell": problem.name, **one_evaluation(problem)})
        for tolerance in TOLERANCES:
            case = forward_case(problem, tolerance)
            entries.extend(race(replace(case, error=_read(case.error)), [*ours, *theirs], rounds))
    return {"rule": RULE, "rounds": rounds, "versions": _versions(), "cells": cells, "solves": entries}


def _read(error: Callable[[Any], float]) -> Callable[[Any], float]:
    """Return an error that reads answers of jax as well."""

    def read(answer: Any) -> float:
        if isinstance(answer, Answer):
            answer = torch.from_numpy(np.array(answer.state))
        return error(answer)

    return read


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in NEEDED}


def table(content: Content) -> str:
    """Return the fastest of each side in every case."""
    rows = []
    for cell in content["cells"]:
        for tolerance in TOLERANCES:
            here = [e for e in content["solves"] if (e["cell"], e["tolerance"]) == (cell["cell"], tolerance)]
            ours, theirs = best(here, "poise"), best(here, "jax")
            pair = [(f"{1e3 * e['seconds']:.2f}", e["solver"]) if e else ("none", "") for e in (ours, theirs)]
            ratio = f"{ours['seconds'] / theirs['seconds']:.2f}" if ours and theirs else ""
            rows.append(
                [cell["cell"], power(tolerance), *pair[0], *pair[1], ratio, f"{cell['torch'] / cell['jax']:.2f}"]
            )
    header = ["cell", "to", "poise, ms", "by", "jitted, ms", "by", "ratio", "one evaluation's"]
    return markdown(header, rows, numbers=(2, 4, 6, 7))


def main() -> None:
    parser = command.parser(__doc__, "jax_solvers", cells=[build.__name__ for build in CELLS], rounds=7)
    options = parser.parse_args()
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(f"{', '.join(missing)} cannot be imported here; install jax, jaxopt and optimistix beside torch.")
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    command.run(
        options,
        partial(measure, options.cells, options.rounds),
        table,
        lambda content: (RULE, table(content)),
        peer=False,
    )


if __name__ == "__main__":
    main()
