"""The way back of a reversible solve: every iterate recovered, the gradient taken through it, the rounding measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from poise.fixed_point.adjoints.base import Ledger
from poise.fixed_point.adjoints.graph import unnamed_leaves
from poise.fixed_point.compiled import reusable_graphs
from poise.fixed_point.packed import PackedCell
from poise.fixed_point.solution import Solution, Status
from poise.fixed_point.transforms import BATCHED_GRADIENTS, refuse_batched
from poise.fixed_point.tree import tree_leaves, tree_map, tree_replace

EPSILON = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Path:
    """Where each sample started and ended, (batch, groups, features), and the evaluations between, (batch,)."""

    start: Tensor
    last: Tensor  # z_{k-1} in float64, k being the evaluations
    before: Tensor  # z_{k-2}
    evaluations: Tensor


@dataclass(frozen=True)
class Journey:
    """What a backward needs besides the tensors that may be differentiated."""

    rtol: float  # the largest relative error of the gradient that passes
    ledger: Ledger
    cell: PackedCell
    damping: float
    budget: int | None  # evaluations of every sample, where they were fixed
    path: Path  # saved by autograd and let go with the rest of the graph
    ends: tuple[GradientEdge, GradientEdge] | None  # of the graph of the last evaluation; None: it is constant
    contexts: int  # of the inputs, so many belong to the context


class Reversal(torch.autograd.Function):
    """Identity from the solve's output to the caller; its backward runs the solve backwards."""

    @staticmethod
    def forward(ctx: Any, journey: Journey, image: Tensor, fz: Tensor, start: Tensor, *inputs: Tensor) -> Tensor:
        """Return the output as it is."""
        way = [leaf for _, leaf in tree_leaves(journey.path)]
        ctx.scene = replace(journey, path=tree_map(lambda leaf: leaf.new_empty(0), journey.path))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(start, *inputs, *way)
        return fz.view_as(fz)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        """Return the gradients of the last evaluation, the start and what the cell used."""
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
        journey: Journey = replace(ctx.scene, path=path)
        with reusable_graphs():
            at_start, gradients = _run_back(journey, grad, start, inputs)
        # The last evaluation's own graph takes the gradient on to all it used.
        return None, grad, None, at_start if start.requires_grad else None, *gradients


def _run_back(
    journey: Journey, grad: Tensor, start: Tensor, inputs: Sequence[Tensor]
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
    journey: Journey, z: Tensor, inputs: Sequence[Tensor], weights: Tensor
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
class Inversion(Solution):
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


def _record(journey: Journey, error: Tensor, count: int) -> None:
    """Leave the record of a backward with the solution, and count it."""
    status = torch.where(error <= journey.rtol, int(Status.CONVERGED), int(Status.DIVERGED)).to(torch.int8)
    record = Inversion(
        state=None,
        status=status.masked_fill(~error.isfinite(), Status.NONFINITE),
        steps=journey.path.evaluations,
        residual=error,
        evaluations=count - 1,
        rows=(count - 1) * len(error),
        rtol=journey.rtol,
        damping=journey.damping,
    )
    journey.ledger.enter(record)
