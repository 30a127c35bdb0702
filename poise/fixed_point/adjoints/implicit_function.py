"""The autograd function of the implicit gradient: what it saves, its backward solve, and its second order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.nn.attention import SDPBackend, sdpa_kernel

from poise.fixed_point.adjoints.base import (
    Ledger,
)
from poise.fixed_point.adjoints.graph import reaches, start_at, unnamed_leaves
from poise.fixed_point.adjoints.products import Evaluation, JacobianProduct, Recording
from poise.fixed_point.adjoints.reuse import reused
from poise.fixed_point.adjoints.tangent import solve_tangent
from poise.fixed_point.checks import sketch
from poise.fixed_point.compiled import reusable_graphs
from poise.fixed_point.dual import carried, in_dual_level, tangent_of, with_tangent
from poise.fixed_point.linear import GMRES, LinearSolver, as_linear
from poise.fixed_point.loop import Iterate
from poise.fixed_point.packed import PackedCell
from poise.fixed_point.solvers import Solver
from poise.fixed_point.solvers.secant import SecantInverse
from poise.fixed_point.transforms import BATCHED_GRADIENTS, in_transform, innermost, refuse_batched
from poise.fixed_point.tree import tree_leaves, tree_map, tree_replace

Evaluate = Callable[[Tensor, Sequence[Tensor]], Tensor]  # of a state and the known inputs


@dataclass(frozen=True)
class _Extras:
    """What makes a backward cheaper; its tensors are saved by autograd and let go with the rest of the graph."""

    z: Tensor
    sketch: Tensor  # of the image, (rows, n)
    inverse: SecantInverse | None  # what the forward has learnt of (I - J)^-1, where it is used again


@dataclass(frozen=True)
class _Scene:
    """What a backward needs besides tensors."""

    solver: Solver | LinearSolver
    ledger: Ledger
    evaluate: Evaluate | None  # None: never recorded
    recording: Recording
    moves: bool  # whether the state carries a tangent
    cell: PackedCell | None  # whose rows can be evaluated again
    extras: _Extras

    @property
    def evaluation(self) -> Evaluation | None:
        """The evaluation that may be made again on fewer rows."""
        return None if self.cell is None else Evaluation(self.cell, self.extras.z, self.extras.sketch)


def attach_implicit(
    solver: Solver | LinearSolver,
    ledger: Ledger,
    evaluate: Evaluate,
    z: Tensor,
    fz: Tensor,
    known: list[Tensor],
    cell: PackedCell | None = None,
    moves: bool = False,
    inverse: SecantInverse | None = None,
    twice: bool = True,
) -> Tensor:
    """Return `fz`, the fixed point of `evaluate(., known)`, with the implicit gradient by the Jacobian at `z`.

    `cell`: what is evaluated, where it is a cell whose rows can be selected. `twice`: whether the backward may be
    recorded.
    """
    start = start_at(z)
    with reusable_graphs():
        image = evaluate(start, known)
    if not image.requires_grad:
        return fz.detach()  # a constant map
    recording = Recording(get_gradient_edge(image), get_gradient_edge(start))
    if not any(leaf.requires_grad for leaf in known) and not unnamed_leaves(recording.image, [start]):
        return fz.detach()  # nothing asks for a gradient
    # By prefix finished samples stay in the batch, as in the forward: shapes decide the last bit.
    rows = cell if cell is not None and cell.selectable and cell.layout.groups == 1 else None
    empty = z.new_empty(0)
    extras = _Extras(empty, empty, inverse) if rows is None else _Extras(z, sketch(image.detach()), inverse)
    if not twice:
        # The evaluation can be made again through `rows` alone, and nothing else keeps the context alive.
        scene = _Scene(solver, ledger, None, recording, moves, rows, extras)
        return _ImplicitFunction.apply(scene, image, fz.detach())
    scene = _Scene(solver, ledger, evaluate, recording, moves, rows, extras)
    return _ImplicitFunction.apply(scene, image, fz.detach(), *known)


def attach_dual(
    solver: Solver | LinearSolver,
    ledger: Ledger,
    evaluate: Evaluate,
    z: Tensor,
    fz: Tensor,
    known: list[Tensor],
    cell: PackedCell,
) -> Tensor:
    """Return `fz` as `attach_implicit` does, with its tangent, whose gradient is that of a fixed point as well."""
    image = evaluate(z.detach(), known)
    moved = tangent_of(image) if in_dual_level() else None
    state = fz.detach()
    if torch.is_grad_enabled():
        if not in_transform():
            with carried(False):
                state = attach_implicit(solver, ledger, evaluate, z, fz, known, cell, moves=moved is not None)
        elif innermost(image).requires_grad:
            raise RuntimeError(
                "a state inside torch.func.jvp keeps no graph for a later backward, but the cell uses tensors that "
                "require gradients; call it under torch.no_grad(), or use torch.autograd.forward_ad, which keeps one."
            )
    if moved is None:
        return state
    tangent = solve_tangent(solver, ledger, lambda at: evaluate(at, known), z, moved)
    if state.requires_grad:

        def affine(v: Tensor, named: Sequence[Tensor]) -> Tensor:
            with carried(True):
                after = tangent_of(evaluate(with_tangent(named[0], v), named[1:]))
            return torch.zeros_like(v) if after is None else after

        with carried(False):  # no rows of `affine` can be selected: the state and the inputs it is given have them all
            tangent = attach_implicit(solver, ledger, affine, tangent, tangent, [state, *known], moves=True)
    return with_tangent(state, tangent)


class _ImplicitFunction(torch.autograd.Function):
    """Identity from the solve's output to the caller; its backward solves for the adjoint u."""

    @staticmethod
    def forward(ctx: Any, scene: _Scene, image: Tensor, fz: Tensor, *known: Tensor) -> Tensor:
        state = fz.view_as(fz)
        extras = [leaf for _, leaf in tree_leaves(scene.extras)]
        ctx.scene = replace(scene, extras=tree_map(lambda leaf: leaf.new_empty(0), scene.extras))
        ctx.set_materialize_grads(False)
        kept = () if scene.evaluate is None else (state, *known)
        ctx.save_for_backward(*kept, *extras)
        return state

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        inputs = len(ctx.needs_input_grad) - 3
        nothing = [None] * inputs
        if grad is None:
            return None, None, None, *nothing
        refuse_batched(grad, BATCHED_GRADIENTS)
        saved = ctx.saved_tensors
        kept = 0 if ctx.scene.evaluate is None else 1 + inputs
        known, extras = saved[1:kept], tree_replace(ctx.scene.extras, iter(saved[kept:]))
        scene: _Scene = replace(ctx.scene, extras=extras)
        if scene.moves and in_dual_level():
            raise RuntimeError(
                "the gradient of a state that carries a tangent was asked for in its dual level, where the gradient "
                "would lack its own tangent; leave the level first, or use create_graph=True without one."
            )
        with reusable_graphs():
            if torch.is_grad_enabled():
                if scene.evaluate is None:
                    raise RuntimeError(
                        "a second derivative was asked for, but the gradient is Implicit(second_order=False), which "
                        "keeps nothing for it; use Implicit()."
                    )
                return None, None, None, *_recorded_gradients(scene, scene.evaluate, saved[0], list(known), grad)
            u = _solve(scene, JacobianProduct(scene.recording, grad.shape, scene.evaluation), grad)
        # u goes on through the one recorded evaluation to everything the cell used, named or closed over.
        return None, u, None, *nothing


class _Gate(torch.autograd.Function):
    """Identity that lets no gradient through while its latch is closed."""

    @staticmethod
    def forward(ctx: Any, latch: _Latch, x: Tensor) -> Tensor:
        ctx.latch = latch
        ctx.set_materialize_grads(False)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        return None, None if ctx.latch.closed else grad


@dataclass
class _Latch:
    closed: bool = False


def _solve(scene: _Scene, product: JacobianProduct, grad: Tensor) -> Tensor:
    """Solve u - J^T u = grad, count the solve, and leave its record with the solution."""
    right = grad.detach().flatten(1)
    # A backward inside autocast is as exact as one outside: the solver's own products stay wide.
    with torch.autocast(grad.device.type, enabled=False):
        found = _reusing(scene, product, right) or as_linear(scene.solver).solve(product, right)
    record = found.solution(None)
    scene.ledger.enter(record)
    u = found.fz
    if not record.ok:
        # A gradient that came in as NaN or infinity goes on as such (loss scaling looks for it); where only the
        # products overflowed, the sample is left without a gradient rather than spoiling the parameters'.
        u = torch.where(u.isfinite() | ~right.isfinite().all(dim=1, keepdim=True), u, 0.0)
        u = torch.where(right.isfinite().all(dim=1, keepdim=True), u, right)
    return u.reshape(grad.shape)


def _reusing(scene: _Scene, product: JacobianProduct, right: Tensor) -> Iterate | None:
    """Solve from what the forward has learnt, or return None where nothing is to be reused."""
    inverse = scene.extras.inverse
    if inverse is None or not isinstance(scene.solver, GMRES):
        return None
    start = reused(inverse, product, right)
    found = scene.solver.solve(product, right, start.u, start.preconditioner, residual=start.residual)
    return replace(found, steps=found.steps + 2)  # the two products that decide


def _recorded_gradients(
    scene: _Scene, evaluate: Evaluate, state: Tensor, known: list[Tensor], grad: Tensor
) -> list[Tensor | None]:
    """Return the gradients of the known inputs as functions that can be differentiated again.

    The detached state of the first-order graph is a leaf: recording a backward through it would lose the terms in which
    the products move with z*. Here the cell is evaluated at the attached state, and u is itself the fixed point of
    u -> J^T u + grad, differentiated implicitly. Gates keep apart what the graph joins: while the gradients are taken
    they stop at the state and at each known input; later derivatives pass.
    """
    unnamed = unnamed_leaves(
        scene.recording.image, [scene.recording.start, *(leaf for leaf in known if leaf.requires_grad)]
    )
    if unnamed:
        raise RuntimeError(
            f"a second derivative was asked for, but the cell closes over {len(unnamed)} tensors that nobody named; "
            "pass them in the context or as fixed_point(..., parameters=...)."
        )

    def affine(v: Tensor, named: Sequence[Tensor]) -> Tensor:
        right, at, *others = named
        at = at if at.requires_grad else at.detach().requires_grad_()
        recording = Recording(get_gradient_edge(evaluate(at, others)), get_gradient_edge(at))
        return recording.product(v, create_graph=True) + right

    latch = _Latch()
    gated_state, *gated = (x if x.is_leaf else _Gate.apply(latch, x) for x in (state, *known))
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        image = evaluate(gated_state, gated)
        recording = Recording(get_gradient_edge(image), get_gradient_edge(gated_state))
        computed = [leaf for leaf in known if not leaf.is_leaf and leaf.requires_grad]
        if reaches(recording.image, [gated_state, *gated], computed):
            raise RuntimeError(
                "a second derivative was asked for, but the cell also closes over a tensor that its context holds; "
                "let it use what is passed as context only."
            )
        evaluation = scene.evaluation
        if evaluation is not None:
            evaluation = replace(evaluation, z=state.detach(), sketch=sketch(image.detach()))
        u = _solve(scene, JacobianProduct(recording, grad.shape, evaluation), grad)
        u = attach_implicit(scene.solver, scene.ledger, affine, u, u, [grad, state, *known])
        wanted = [place for place, leaf in enumerate(gated) if leaf.requires_grad]
        latch.closed = True
        try:
            found = torch.autograd.grad(
                image, [gated[place] for place in wanted], u, create_graph=True, allow_unused=True
            )
        finally:
            latch.closed = False
    gradients: list[Tensor | None] = [None] * len(known)
    for place, value in zip(wanted, found, strict=True):
        gradients[place] = value
    return gradients
