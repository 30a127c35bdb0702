"""The gradient of a reversible solve: exact for the steps taken, at memory that does not grow with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from poise.fixed_point.adjoints.base import (
    Adjoint,
    Attachment,
    Ledger,
    derivatives_wanted,
    detached_state,
    on_usable_rows,
)
from poise.fixed_point.adjoints.graph import start_at, unnamed_leaves
from poise.fixed_point.compiled import reusable_graphs
from poise.fixed_point.dual import carried, in_dual_level, tangent_of
from poise.fixed_point.live_rows import Observer
from poise.fixed_point.loop import Iterate, iterate
from poise.fixed_point.packed import PackedCell
from poise.fixed_point.solution import Solution, Status
from poise.fixed_point.solvers import Picard, Solver
from poise.fixed_point.transforms import BATCHED_GRADIENTS, in_transform, refuse_batched
from poise.fixed_point.tree import tree_leaves, tree_map, tree_replace

EPSILON = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Reversible(Adjoint):
    """Solve by z_{k+1} = (1 - b) z_{k-1} + b f(z_k) and run it backwards for the gradient of exactly these steps.

    Two successive iterates are the pair (y, z) of McCallum et al. (2025), "Reversible Deep Equilibrium Models", so that
    each of their steps is two evaluations here. The solver is `Picard(damping=b)`, b in (0, 2) but not 1, with its
    tolerance or fixed budget. Two iterates are kept, in float64 whatever the cell computes in; the backward evaluates
    the cell once more at every iterate. Samples that are finished are frozen but stay in the batch: an iterate is
    recovered only if its evaluation is repeated to the bit, and kernels for another batch size round differently.

    Inversion lets rounding grow by up to |1 - b|^-1 an evaluation (of a contraction; on average by its root), while the
    gradient that arrives there shrinks. What comes of it is measured: the backward ends at the start, which is known,
    and its miss there, times the share of the gradient that reaches it, estimates the gradient's relative error.
    `rtol`: the largest that passes in silence; `solution.backward.residual` holds each sample's. By the bound alone
    |1 - b|^-evaluations <= rtol / 2.2e-16 is safe: 32 evaluations for b = 0.5, 13 for 0.8.
    """

    rtol: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rtol > 0:
            raise ValueError(f"Reversible(rtol={self.rtol}) lets no rounding pass; pass a number above 0.")

    def find(self, cell: PackedCell, z: Tensor, solver: Solver, **options: Any) -> Iterate:
        """Solve for the pair of successive iterates, all rows to the end."""
        if type(solver) is not Picard or solver.damping == 1.0 or solver.scope != "sample":
            raise ValueError(
                f"{self} runs backwards only what it can invert, not {solver}; pass solver=Picard(damping=0.5), or "
                "another damping than 1, with scope='sample'."
            )
        if options.pop("valid", None) is not None:
            raise ValueError(
                f"{self} cannot hold back entries outside valid; mask them in the cell, or use Unrolled()."
            )
        observer: Observer | None = options.pop("observer", None)
        if observer is not None:
            options["observer"] = _observed(observer, z.dtype)
        coupled = _Coupled(**{field.name: getattr(solver, field.name) for field in fields(solver)})
        pair = torch.cat([z, z], dim=2).double()
        with torch.no_grad(), carried(False):
            found = iterate(_PairedCell.of(cell), pair, coupled, compact=False, **options)
        last, before = (half.contiguous() for half in found.z.chunk(2, dim=2))
        found = replace(
            found,
            z=last.to(z.dtype),
            fz=found.fz.chunk(2, dim=2)[0].to(z.dtype, copy=True),  # no view of the pair
            residual=found.residual.to(z.dtype),
        )
        return _Traveled(**vars(found), path=_Path(z, last, before, _evaluations(found)), damping=solver.damping)

    def attach(self, attachment: Attachment) -> Any:
        """Return the solve's own output, with the gradient of its steps."""
        found = attachment.found
        assert isinstance(found, _Traveled)
        if not derivatives_wanted():
            return detached_state(attachment)

        def attach(cell: PackedCell, path: _Path, fz: Tensor) -> Tensor:
            context = [leaf for _, leaf in tree_leaves(cell.context) if leaf.requires_grad]
            last = path.last.detach().to(fz.dtype)
            if in_transform() or (in_dual_level() and tangent_of(cell(last)) is not None):
                raise RuntimeError(
                    f"{self} runs backwards only, it carries no tangents forward; use Implicit() or, at no more memory "
                    "in forward mode, Unrolled()."
                )
            with reusable_graphs():
                last = start_at(last)
                image = cell(last)
            # What the cell closes over. A leaf of the context may be closed over as well.
            closed = [*attachment.parameters, *(leaf for leaf in context if leaf.is_leaf)]
            if image.requires_grad:
                closed += unnamed_leaves(get_gradient_edge(image), [last, *context])
            closed = list({id(leaf): leaf for leaf in closed}.values())
            if not any(tensor.requires_grad for tensor in (path.start, *context, *closed)):
                return fz.detach()
            ends = (get_gradient_edge(image), get_gradient_edge(last)) if image.requires_grad else None
            budget = found.evaluations if found.rtol is None else None
            journey = _Journey(self, attachment.ledger, cell, found.damping, budget, path, ends, len(context))
            return _Reversal.apply(journey, image, fz.detach(), path.start, *context, *closed)

        return on_usable_rows(attachment, attach, found.path)


def _observed(observer: Observer, dtype: torch.dtype) -> Observer:
    """Return an observer of pairs that passes on the last iterate of each."""

    def observe(number: int, index: Tensor | None, z: Tensor, fz: Tensor, residual: Tensor) -> None:
        last, image = (pair.chunk(2, dim=2)[0].to(dtype) for pair in (z, fz))
        observer(number, index, last, image, residual.to(dtype))

    return observe


class _Coupled(Picard):
    """The coupled iteration on pairs (z_k, z_{k-1})."""

    def step(
        self, z: Tensor, fz: Tensor, memory: Any, f: PackedCell, valid: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        last, before = z.chunk(2, dim=2)
        image = fz.chunk(2, dim=2)[0]
        return torch.cat([torch.lerp(before, image, self.damping), last], dim=2), memory


@dataclass(frozen=True, kw_only=True)
class _PairedCell(PackedCell):
    """(z_k, z_{k-1}) -> (f(z_k), z_{k-1}): the residual of a pair is that of its last iterate."""

    inner: PackedCell

    @staticmethod
    def of(cell: PackedCell) -> _PairedCell:
        layout = replace(cell.layout, widths=cell.layout.widths * 2, positions=cell.layout.positions * 2)
        return _PairedCell(**{**vars(cell), "layout": layout}, inner=cell)

    def __call__(self, z: Tensor) -> Tensor:
        last, before = z.chunk(2, dim=2)
        return torch.cat([self.inner(last.to(self.layout.dtype)).to(z.dtype), before], dim=2)


@dataclass(frozen=True)
class _Path:
    """Where each sample started and ended, (batch, groups, features), and the evaluations between, (batch,)."""

    start: Tensor
    last: Tensor  # z_{k-1} in float64, k being the evaluations
    before: Tensor  # z_{k-2}
    evaluations: Tensor


@dataclass(frozen=True, kw_only=True)
class _Traveled(Iterate):
    """An Iterate with the way back."""

    path: _Path
    damping: float


def _evaluations(found: Iterate) -> Tensor:
    """Return the evaluations up to the iterate returned: the last of a sample, or the best of one that failed."""
    if found.rtol is None or not len(found.steps):
        return found.steps
    residuals = found.trace.dense().nan_to_num(nan=float("inf"))
    best = (residuals == residuals.amin(dim=0)).int().argmax(dim=0) + 1
    return torch.where(found.status == Status.CONVERGED, found.steps, best)


@dataclass(frozen=True)
class _Journey:
    """What a backward needs besides the tensors that may be differentiated."""

    adjoint: Reversible
    ledger: Ledger
    cell: PackedCell
    damping: float
    budget: int | None  # evaluations of every sample, where they were fixed
    path: _Path  # saved by autograd and let go with the rest of the graph
    ends: tuple[GradientEdge, GradientEdge] | None  # of the graph of the last evaluation; None: it is constant
    contexts: int  # of the inputs, so many belong to the context


class _Reversal(torch.autograd.Function):
    """Identity from the solve's output to the caller; its backward runs the solve backwards."""

    @staticmethod
    def forward(ctx: Any, journey: _Journey, image: Tensor, fz: Tensor, start: Tensor, *inputs: Tensor) -> Tensor:
        way = [leaf for _, leaf in tree_leaves(journey.path)]
        ctx.scene = replace(journey, path=tree_map(lambda leaf: leaf.new_empty(0), journey.path))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(start, *inputs, *way)
        return fz.view_as(fz)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is None:
            return (None,) * len(ctx.needs_input_grad)
        refuse_batched(grad, BATCHED_GRADIENTS)
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a second derivative was asked for, but Reversible() keeps no graph of its gradient; use Implicit(), "
                "or Unrolled() for the second derivative of the steps."
            )
        start, *saved = ctx.saved_tensors
        count = len(ctx.needs_input_grad) - 4
        inputs, path = saved[:count], tree_replace(ctx.scene.path, iter(saved[count:]))
        journey: _Journey = replace(ctx.scene, path=path)
        with reusable_graphs():
            at_start, gradients = _run_back(journey, grad, start, inputs)
        # The last evaluation's own graph takes the gradient on to all it used.
        return None, grad, None, at_start if start.requires_grad else None, *gradients


def _run_back(
    journey: _Journey, grad: Tensor, start: Tensor, inputs: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor | None]]:
    """Recover every iterate, last to first, and return the gradients of the start and of what the cell used."""
    path, b = journey.path, journey.damping
    later, here = path.last, path.before
    # The gradients of `later`, complete, and of `here`, as far as it has been used by a later step.
    slope, ahead = torch.zeros_like(later), torch.zeros_like(later)
    if journey.ends is not None:
        (pulled,) = torch.autograd.grad(
            [journey.ends[0]], [journey.ends[1]], [grad], retain_graph=True, allow_unused=True
        )
        slope = slope if pulled is None else pulled.to(slope.dtype)
    totals: list[Tensor | None] = [None] * len(inputs)
    count = max(path.evaluations.tolist(), default=1) if journey.budget is None else journey.budget
    for back in range(1, count):
        going = (back < path.evaluations).reshape(-1, 1, 1)
        weights = torch.where(going, b * slope, 0.0).to(grad.dtype)
        image, pulled, found = _pull(journey, here.detach().to(grad.dtype), inputs, weights)
        earlier = (later - b * image) / (1 - b)
        later, here = torch.where(going, here, later), torch.where(going, earlier, here)
        slope, ahead = torch.where(going, ahead + pulled, slope), torch.where(going, (1 - b) * slope, ahead)
        totals = [a if b is None else b if a is None else a + b for a, b in zip(totals, found, strict=True)]
    miss = torch.maximum(_norm(later - start), _norm(here - start))
    share = _norm(slope) + _norm(ahead)
    _record(journey, _ratio(miss, torch.maximum(_norm(start), _norm(path.last))) * _ratio(share, _norm(grad)), count)
    return (slope + ahead).to(start.dtype), totals


def _pull(
    journey: _Journey, z: Tensor, inputs: Sequence[Tensor], weights: Tensor
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """Evaluate the cell at `z`; return its image and the products of `weights` with its Jacobians."""
    cell, contexts = journey.cell, journey.contexts
    # Copies cut the graph behind the context, which may lead to the same tensors as the rest.
    copies = [leaf.detach().requires_grad_() for leaf in inputs[:contexts]]
    following = iter(copies)
    leaves = [next(following) if leaf.requires_grad else leaf for _, leaf in tree_leaves(cell.context)]
    ends = [z.requires_grad_(), *copies, *inputs[contexts:]]
    with torch.enable_grad():
        image = replace(cell, context=tree_replace(cell.context, iter(leaves)))(z)
    found: Sequence[Tensor | None] = [None] * len(ends)
    if image.requires_grad:
        missed = unnamed_leaves(get_gradient_edge(image), ends)
        if missed:
            raise RuntimeError(
                f"Reversible() met {len(missed)} tensors on its way back that the cell did not use in its last "
                "evaluation; name them in fixed_point(..., parameters=...), or, where functional_call has put back the "
                "cell's own parameters since, use Implicit()."
            )
        # Retained: what the cell closes over may have been computed, by a graph that every evaluation goes through.
        wanted = [place for place, end in enumerate(ends) if end.requires_grad]
        answers = torch.autograd.grad(
            image, [ends[place] for place in wanted], weights, retain_graph=True, allow_unused=True
        )
        found = [None] * len(ends)
        for place, answer in zip(wanted, answers, strict=True):
            found[place] = answer
    pulled = torch.zeros_like(z) if found[0] is None else found[0]
    return image.detach().double(), pulled.double(), list(found[1:])


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1, dtype=torch.float64)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return part / whole.clamp_min(torch.finfo(whole.dtype).tiny)


@dataclass(frozen=True, repr=False)
class _Inversion(Solution):
    """The record of a backward: `residual` is the relative error that rounding puts on the gradient."""

    damping: float = 0.5

    def describe(self, what: str) -> str:
        """Return one sentence on how far the inversion is off, why, and what to do."""
        lost = self.status != Status.CONVERGED
        if not bool(lost.any()):
            return super().describe(what)
        worst, steps = self.residual[lost].max().item(), int(self.steps[lost].max())
        return (
            f"{what} of Reversible() is off by about {worst:.1e} of the gradient in {int(lost.sum())} of "
            f"{len(self.status)} samples (asked: {self.rtol:g}), since inverting {steps} evaluations at damping "
            f"{self.damping:g} lets rounding of {EPSILON:.1e} grow by up to {1 / abs(1 - self.damping):.3g} in each; "
            "lower max_steps, take a damping further from 1, or use Implicit()."
        )


def _record(journey: _Journey, error: Tensor, count: int) -> None:
    """Leave the record of a backward with the solution, and count it."""
    status = torch.where(error <= journey.adjoint.rtol, int(Status.CONVERGED), int(Status.DIVERGED)).to(torch.int8)
    record = _Inversion(
        state=None,
        status=status.masked_fill(~error.isfinite(), Status.NONFINITE),
        steps=journey.path.evaluations,
        residual=error,
        evaluations=count - 1,
        rows=(count - 1) * len(error),
        rtol=journey.adjoint.rtol,
        damping=journey.damping,
    )
    journey.ledger.enter(record)
