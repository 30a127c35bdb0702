"""`fixed_point` and `find_root`: the two functions of the core."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from poise.fixed_point.adjoints import Adjoint, Implicit
from poise.fixed_point.adjoints.base import Attachment, Ledger
from poise.fixed_point.checks import check_cell
from poise.fixed_point.compiled import outside_compilation
from poise.fixed_point.dual import in_dual_level, tangent_of
from poise.fixed_point.options import check_kind, require
from poise.fixed_point.packed import PackedCell, asks_for_context, check_context
from poise.fixed_point.sharding import refuse_sharded
from poise.fixed_point.solution import OnFailure, Solution
from poise.fixed_point.solvers import Anderson, Solver
from poise.fixed_point.state import Layout, Positions
from poise.fixed_point.tally import Counters
from poise.fixed_point.trajectory import Callback, Observer, wanted_evaluations
from poise.fixed_point.transforms import admitted
from poise.fixed_point.tree import tree_leaves, tree_map


@outside_compilation
def fixed_point(
    f: Callable[..., Any],
    z0: Any,
    context: Any = None,
    *,
    solver: Solver = Anderson(),
    adjoint: Adjoint = Implicit(),
    parameters: Iterable[Tensor] = (),
    valid: Any = None,
    position_dim: Positions = 1,
    on_failure: OnFailure = "warn",
    check: bool | None = None,
    counters: Counters | None = None,
    record: bool | Collection[int] = False,
    callback: Callback | None = None,
) -> Solution:
    """Find z = f(z, context) for every sample of a batch, and differentiate through it.

    `f`: returns a state shaped as it was given. `z0`: the start, a tensor (batch, ...) or a tuple of them, real or
    complex, or an earlier Solution, whose state is gone on from: detached, and from zero for a sample that is not
    finite. `context`: a tree of tensors (batch, ...) with all that belongs to a sample; with it, samples that are
    finished leave the batch; without one, `f` is called as f(z) and they are frozen only. `solver`, `adjoint`: values
    such as `Anderson(rtol=1e-6)` and `Phantom(steps=3)`. `parameters`: tensors that `f` closes over and that second
    derivatives shall reach (first derivatives reach all). `valid`: a bool mask over the leading dimensions of the state
    (or one for each part); entries outside are left out of residuals and mixing. `position_dim`: the dimension of
    positions (scope="prefix"), or the dimensions of them (residual="position"). `on_failure`: what happens when a solve
    misses its tolerance, forward or backward: a ConvergenceWarning, a ConvergenceError, or nothing. `check`: look once
    whether `f` couples samples, is deterministic and uses its context, and warn with a CellWarning if not (a few
    evaluations of few samples; default: the first solve that `counters` counts). `record`: evaluations, by number from
    1, whose states are returned as `solution.trajectory` with the gradient of one step each (of the whole solve under
    Unrolled); True for all. `callback`: called with a `Step` after every evaluation.

    Raises ValueError or TypeError for a state, context or cell output of the wrong shape or dtype.
    """
    if on_failure not in ("raise", "warn", "ignore"):
        raise ValueError(f"on_failure={on_failure!r} is unknown; pass 'raise', 'warn' or 'ignore'.")
    require("f", f, Callable, "lambda z: 0.5 * z + 1")
    require("solver", solver, Solver, "Anderson(rtol=1e-4)")
    require("adjoint", adjoint, Adjoint, "Implicit()")
    for dimension in position_dim if isinstance(position_dim, tuple) else (position_dim,):
        check_kind("fixed_point", "position_dim", dimension, "int")
    check_kind("fixed_point", "check", check, "bool | None")
    if callback is not None:
        require("callback", callback, Callable, "print")
    refuse_sharded(f)
    counters = Counters.single() if counters is None else counters
    start = "the state"
    if isinstance(z0, Solution):
        z0, start = _usable(z0.state), "the earlier solution"
    layout = Layout.of(
        z0,
        groups=position_dim if solver.scope == "prefix" else (),
        positions=position_dim if solver.residual == "position" else (),
    )
    z = layout.pack(z0)
    check_context(context, z.shape[0], start)
    # One that carries a tangent is a view of what was named, and reached as anything that the cell closes over.
    carries = in_dual_level()
    parameters = [p for p in _named(parameters) if p.requires_grad and not (carries and tangent_of(p) is not None)]
    if not all(parameter.is_leaf for parameter in parameters):
        raise ValueError("parameters holds a tensor that was computed from others; name the tensors it was made from.")
    mask = None if valid is None else layout.pack_mask(valid, z.shape[0])
    cell = PackedCell(
        f=admitted(f, (z0, context, parameters), adjoint.records),
        layout=layout,
        context=context,
        selectable=context is not None,
        takes_context=context is not None or asks_for_context(f),
    )
    wanted = wanted_evaluations(record, solver.max_steps)
    observer = None if record is False and callback is None else Observer(cell, wanted, callback)
    found = adjoint.find(cell, z, solver, valid=mask, observer=observer)
    solution = replace(found.solution(None), atol=solver.atol)
    counters.forward.add(solution, on_failure)
    if not counters.checked if check is None else check:
        counters.checked = True
        check_cell(cell, found)
    backward: list[Solution] = []
    attachment = Attachment(cell, found, tuple(parameters), Ledger(backward, counters.backward, on_failure))
    solution = found.solution(adjoint.attach(attachment), backward)
    trajectory = () if observer is None else observer.states(attachment, solution.state, adjoint.records_solve)
    return replace(solution, start=z0, context=context, trajectory=trajectory, atol=solver.atol)


def _usable(state: Any) -> Any:
    """Return a state to go on from: detached, with zeros for samples in which a number is not finite."""
    state = tree_map(Tensor.detach, state)
    finite = [part.isfinite().flatten(1).all(dim=1) for _, part in tree_leaves(state)]
    usable = torch.stack(finite).all(dim=0)
    return tree_map(lambda part: torch.where(usable.view(-1, *[1] * (part.dim() - 1)), part, 0), state)


def find_root(g: Callable[..., Any], z0: Any, context: Any = None, **options: Any) -> Solution:
    """Find g(z, context) = 0: the fixed point of z + g(z, context), with everything that `fixed_point` takes.

    The residual is |g(z)| / |z + g(z)|.
    """
    require("g", g, Callable, "lambda z: z * z - 2")
    refuse_sharded(g)
    takes_context = context is not None or asks_for_context(g)

    def f(z: Any, context: Any) -> Any:
        value = g(z, context) if takes_context else g(z)
        if isinstance(z, tuple) and isinstance(value, tuple) and len(z) == len(value):
            return tuple(part + change for part, change in zip(z, value, strict=True))
        if isinstance(z, Tensor) and isinstance(value, Tensor) and z.shape == value.shape:
            return z + value
        return value  # of another structure: refused by name where it is checked

    return fixed_point(f, z0, context, **options)


def _named(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Return the tensors that second derivatives shall reach."""
    named = None if isinstance(parameters, Tensor) or not isinstance(parameters, Iterable) else list(parameters)
    if named is None or not all(isinstance(parameter, Tensor) for parameter in named):
        kind = type(parameters).__name__
        raise TypeError(f"parameters is a collection of tensors, not a {kind}; pass one such as layer.parameters().")
    return named
