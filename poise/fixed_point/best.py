"""The best iterate of every group so far, copied only where a later one is worse."""

from __future__ import annotations

import torch
from torch import Tensor

from poise.fixed_point.tree import select_rows


class Best:
    """The lowest residual of each group (rows, groups), its iterate and its image.

    Most groups improve at most steps, so their best is the latest iterate, which costs nothing to keep; a group's is
    copied when the next one is worse.
    """

    def __init__(self, z: Tensor) -> None:
        infinite = torch.full(z.shape[:2], float("inf"), dtype=z.dtype, device=z.device)
        self.residual = infinite
        self.latest = self.stored = (z, z)
        self.current: Tensor | None = None  # (rows, groups) whose best is the latest; None for all

    def improve(self, residual: Tensor, z: Tensor, fz: Tensor) -> None:
        """Take an iterate that is the best of all groups."""
        self.residual, self.latest, self.current = residual, (z, fz), None

    def update(self, residual: Tensor, z: Tensor, fz: Tensor) -> None:
        """Take an iterate that may be the best of some groups."""
        improved = residual < self.residual
        leaving = ~improved if self.current is None else self.current & ~improved
        groups = leaving.flatten().nonzero().squeeze(1)
        if groups.numel():
            self.stored = (
                _with_groups(self.stored[0], groups, self.latest[0]),
                _with_groups(self.stored[1], groups, self.latest[1]),
            )
        self.residual = torch.where(improved, residual, self.residual)
        self.latest, self.current = (z, fz), improved

    def state(self) -> tuple[Tensor, Tensor]:
        """Return the best iterate of every group and its image, (rows, groups, features)."""
        if self.current is None:
            return self.latest
        wide = self.current.unsqueeze(-1)
        return torch.where(wide, self.latest[0], self.stored[0]), torch.where(wide, self.latest[1], self.stored[1])

    def select(self, index: Tensor) -> None:
        """Keep these rows."""
        kept = select_rows((self.residual, self.latest, self.stored, self.current), index)
        self.residual, self.latest, self.stored, self.current = kept


def _with_groups(stored: Tensor, groups: Tensor, latest: Tensor) -> Tensor:
    flat, new = stored.flatten(0, 1), latest.flatten(0, 1)
    return flat.index_copy(0, groups, new.index_select(0, groups)).view_as(stored)
