"""What the graph of a cell reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge


def unnamed_leaves(end: GradientEdge, known: Sequence[Tensor | GradientEdge]) -> list[Tensor]:
    """Return the leaf tensors that a graph reaches other than through the known ones."""
    nodes = walk(end, known)
    # The detached start of an equilibrium inside the cell is a leaf of the graph, but no input.
    inner = [getattr(getattr(node, "scene", None), "start", None) for node in nodes]
    starts = {edge.node for edge in inner if isinstance(edge, GradientEdge)}
    return [node.variable for node in nodes if hasattr(node, "variable") and node not in starts]


def reaches(end: GradientEdge, known: Sequence[Tensor | GradientEdge], targets: Sequence[Tensor]) -> bool:
    """Return whether a graph reaches one of the targets other than through the known tensors."""
    sought = {get_gradient_edge(target).node for target in targets}
    return bool(sought) and any(node in sought for node in walk(end, known))


def walk(end: GradientEdge, known: Sequence[Tensor | GradientEdge]) -> list[Any]:
    """Return the nodes of a graph from its end, not going on at the known tensors."""
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
            ahead.extend(following for following, _ in node.next_functions if following is not None)
    return found
