"""Where the graph of a cell starts, and what it reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge


class _Start(torch.autograd.Function):
    """Identity at which a backward ends."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, z: Tensor) -> Tensor:
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        return None, None


def start_at(z: Tensor) -> Tensor:
    """Return a detached state as one that requires gradients, where a graph starts that keeps nothing of it.

    A leaf would live, and hold the gradient that every backward leaves with it, as long as the state that is returned.
    """
    return _Start.apply(z.new_empty(0).requires_grad_(), z.detach())


def unnamed_leaves(end: GradientEdge, known: Sequence[Tensor | GradientEdge]) -> list[Tensor]:
    """Return the leaf tensors that a graph reaches other than through the known ones."""
    return [node.variable for node in walk(end, known) if hasattr(node, "variable")]


def reaches(end: GradientEdge, known: Sequence[Tensor | GradientEdge], targets: Sequence[Tensor]) -> bool:
    """Return whether a graph reaches one of the targets other than through the known tensors."""
    sought = {get_gradient_edge(target).node for target in targets}
    return bool(sought) and any(node in sought for node in walk(end, known))


def walk(end: GradientEdge, known: Sequence[Tensor | GradientEdge]) -> list[Any]:
    """Return the nodes of a graph from its end, not going on at the known tensors, nor at starts within the cell."""
    edges = [
        edge if isinstance(edge, GradientEdge) else get_gradient_edge(edge)
        for edge in known
        if isinstance(edge, GradientEdge) or edge.requires_grad
    ]
    seen = {edge.node for edge in edges}
    found, ahead = [], [end.node]
    while ahead:
        node = ahead.pop()
        if node not in seen:
            seen.add(node)
            found.append(node)
            if not isinstance(node, _Start._backward_cls):
                ahead.extend(following for following, _ in node.next_functions if following is not None)
    return found
