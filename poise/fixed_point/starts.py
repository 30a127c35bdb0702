"""Several starts for each sample: where they lead, how far they agree, and which one is the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from poise.fixed_point.solution import Solution, Status
from poise.fixed_point.tree import select_rows, tree_leaves, tree_map

Choice = Literal["agreement", "evaluations", "residual"]
Read = Callable[[Any], Tensor]  # the answers (rows, ...) that states (rows, ...) stand for

# Two states at most so far apart, relative to the larger, are one where nothing reads an answer off them: an error of
# a tolerance of 1e-3 where the cell contracts by 0.95 an evaluation, and far below the distance of two fixed points.
SAME = 0.02


@dataclass(frozen=True)
class Starts:
    """What the solves of each sample from several starts found; (batch, starts) unless said otherwise.

    In the solution's `trace` the starts of a sample are columns one after another.
    """

    states: Any  # each (batch, starts, ...), detached
    status: Tensor
    steps: Tensor
    residual: Tensor
    votes: Tensor  # how many starts give the same answer, itself among them
    chosen: Tensor  # (batch,) the start whose answer is the sample's

    @property
    def agreement(self) -> Tensor:
        """(batch,) the part of all pairs of starts that give the same answer; 1 of a single start."""
        pairs = self.votes.shape[1] * (self.votes.shape[1] - 1)
        return (self.votes - 1).sum(dim=1) / pairs if pairs else torch.ones_like(self.residual[:, 0])


def check_choice(starts: int, choose: str, given: int) -> None:
    """Refuse numbers and choices that mean nothing."""
    if starts < 1:
        raise ValueError(f"starts={starts} solves nothing; pass at least 1.")
    if given > starts:
        raise ValueError(f"z0 holds {given} starts, but starts={starts}; raise it.")
    if choose not in get_args(Choice):
        raise ValueError(f"choose={choose!r} is unknown; pass 'agreement', 'evaluations' or 'residual'.")


def stacked(given: Sequence[Any], draw: Callable[[], Any], starts: int) -> Any:
    """Return states (batch * starts, ...), those of a sample one after another: the given ones, then drawn ones."""
    states = [*given, *(draw() for _ in range(starts - len(given)))]
    shapes = [[tuple(leaf.shape) for _, leaf in tree_leaves(state)] for state in states]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"the starts have shapes {shapes}; give states of one shape.")
    if isinstance(states[0], tuple):
        return tuple(torch.stack(parts, dim=1).flatten(0, 1) for parts in zip(*states, strict=True))
    return torch.stack(states, dim=1).flatten(0, 1)


def repeated(tree: Any, starts: int) -> Any:
    """Return a tree of tensors (batch, ...) with every row as often as there are starts."""
    return tree_map(lambda leaf: leaf.repeat_interleave(starts, dim=0), tree)


def chosen(solution: Solution, starts: int, choose: Choice, read: Read | None) -> Solution:
    """Return the solution of one start a sample, of a solution whose rows are samples times starts.

    "agreement": the start that most agree with, of these the one of fewest evaluations. "evaluations": the one that
    took the fewest. "residual": the smallest residual. Solves that met their tolerance come before those that did not,
    but for "agreement", where an answer counts however it was found; no solve that ended in NaN comes before another.
    """
    status, steps, residual = (
        part.unflatten(0, (-1, starts)) for part in (solution.status, solution.steps, solution.residual)
    )
    votes = _votes(solution, starts, read)
    missed = solution.failed.unflatten(0, (-1, starts))
    lost = (status == Status.NONFINITE).double()
    keys = {
        "agreement": (lost, -votes, steps, residual),
        "evaluations": (lost, missed, steps, residual),
        "residual": (lost, missed, residual, steps),
    }[choose]
    winner = _first_by(*keys)
    rows = torch.arange(len(winner), device=winner.device) * starts + winner
    states = tree_map(lambda leaf: leaf.detach().unflatten(0, (-1, starts)), solution.state)
    state, start, context, trajectory, own = select_rows(
        (
            solution.state, solution.start, solution.context, list(solution.trajectory),
            (solution.status, solution.steps, solution.residual),
        ),
        rows,
    )  # fmt: skip
    return replace(
        solution, state=state, start=start, context=context, trajectory=tuple(trajectory),
        status=own[0], steps=own[1], residual=own[2],
        starts=Starts(states, status, steps, residual, votes, winner),
    )  # fmt: skip


@torch.no_grad()
def _votes(solution: Solution, starts: int, read: Read | None) -> Tensor:
    """Return how many starts give the answer of each, (batch, starts)."""
    if read is not None:
        answers = read(solution.state).reshape(len(solution.status) // starts, starts, -1)
        same = (answers.unsqueeze(1) == answers.unsqueeze(2)).all(dim=3)
    else:
        parts = [leaf.detach().flatten(1).unflatten(0, (-1, starts)) for _, leaf in tree_leaves(solution.state)]
        same = torch.stack([_close(part) for part in parts]).all(dim=0)
    # A start that ended in NaN agrees with itself alone.
    same |= torch.eye(starts, dtype=torch.bool, device=same.device)
    return same.sum(dim=2)


def _close(states: Tensor) -> Tensor:
    """Return (batch, starts, starts): which states (batch, starts, features) are one."""
    size = torch.linalg.vector_norm(states, dim=2).double()
    distance = torch.stack(
        [torch.linalg.vector_norm(states - states[:, i : i + 1], dim=2) for i in range(states.shape[1])], dim=1
    )
    return distance <= SAME * torch.maximum(size.unsqueeze(1), size.unsqueeze(2))


def _first_by(*keys: Tensor) -> Tensor:
    """Return (batch,) the first column of (batch, columns) by the first key, ties broken by the next ones."""
    order = torch.arange(keys[0].shape[1], device=keys[0].device).expand_as(keys[0])
    for key in reversed(keys):
        place = key.double().nan_to_num(nan=float("inf")).gather(1, order).argsort(dim=1, stable=True)
        order = order.gather(1, place)
    return order[:, 0]
