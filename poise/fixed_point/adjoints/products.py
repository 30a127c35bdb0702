"""Products with the transposed Jacobian of one recorded evaluation, and of fewer rows where that pays."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from poise.fixed_point.checks import differ, sketch
from poise.fixed_point.linear.base import LIVE_SHARE, Product
from poise.fixed_point.packed import Count, PackedCell
from poise.fixed_point.tree import select_rows, tree_map


@dataclass(frozen=True)
class Recording:
    """The graph of one evaluation of the cell, by its ends: they hold no numbers."""

    image: GradientEdge
    start: GradientEdge

    def product(self, u: Tensor, create_graph: bool = False) -> Tensor:
        """Return J^T u, of the shape of the state."""
        (moved,) = torch.autograd.grad(
            [self.image], [self.start], [u], retain_graph=True, create_graph=create_graph, allow_unused=True
        )
        return torch.zeros_like(u) if moved is None else moved


@dataclass(frozen=True)
class Evaluation:
    """What it takes to evaluate the cell again on some of its rows: the state, and a sketch of the image to expect."""

    cell: PackedCell
    z: Tensor  # (rows, groups, features)
    sketch: Tensor  # (rows, n)

    def select(self, index: Tensor) -> Evaluation:
        """Return the evaluation of the rows `index`."""
        z, sketched = select_rows((self.z, self.sketch), index)
        return replace(self, cell=self.cell.select(index), z=z, sketch=sketched)

    def record(self, count: Count) -> Recording | None:
        """Evaluate with a graph and count it; None where the image is not the one that the first evaluation gave.

        A cell that draws noise in itself, or whose weights have changed, would give another Jacobian.
        """
        cell = replace(self.cell, context=tree_map(Tensor.detach, self.cell.context), count=count)
        with torch.enable_grad():
            start = self.z.detach().requires_grad_()
            image = cell(start)
            if not image.requires_grad or differ(cell, sketch(image.detach()), self.sketch):
                return None
        return Recording(get_gradient_edge(image), get_gradient_edge(start))


class JacobianProduct(Product):
    """u -> J^T u on (rows, features) by vector-Jacobian products of a recorded evaluation.

    Rows that are left out are padded with zeros, until so few are left that evaluating the cell again on these alone is
    made up for by the next product. The count's rows are those that were evaluated or differentiated, padded or not.
    """

    def __init__(self, recording: Recording, shape: torch.Size, evaluation: Evaluation | None = None) -> None:
        super().__init__()
        self.recording = recording
        self.shape = shape  # of the recorded state, (rows, groups, features)
        self.evaluation = evaluation  # of the recorded rows; None: never evaluated again
        self.places: Tensor | None = None  # where the rows stand in the recording; None for all of it
        self.selectable = evaluation is not None

    def __call__(self, u: Tensor) -> Tensor:
        """Return J^T u of these rows."""
        if self.places is not None and len(self.places) <= LIVE_SHARE * self.shape[0]:
            self._record_anew(self.places)
        self.count.evaluations += 1
        self.count.rows += self.shape[0]
        if self.places is None:
            return self.recording.product(u.reshape(self.shape)).flatten(1)
        padded = u.new_zeros(self.shape[0], u.shape[1]).index_copy(0, self.places, u)
        return self.recording.product(padded.reshape(self.shape)).flatten(1).index_select(0, self.places)

    def select(self, index: Tensor) -> Product:
        """Return the map of the rows `index`; what was recorded for these alone is kept only as long as it."""
        part = copy.copy(self)
        part.places = index if self.places is None else self.places.index_select(0, index)
        return part

    def _record_anew(self, places: Tensor) -> None:
        """Evaluate the cell on these rows alone, if it still gives there what it gave."""
        if self.evaluation is None:
            return
        self.evaluation = self.evaluation.select(places)
        recording = self.evaluation.record(self.count)
        if recording is None:
            self.evaluation = None
        else:
            self.recording, self.shape, self.places = recording, self.evaluation.z.shape, None
