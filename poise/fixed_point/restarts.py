"""When a group begins anew: its residual has grown, so extrapolation has jumped and its memory misleads."""

from __future__ import annotations

import torch
from torch import Tensor

from poise.fixed_point.best import Best
from poise.fixed_point.tree import select_rows

# A group that restarts without having gained anything takes so many plain steps of this damping first, and twice as
# many the next time: where extrapolation jumps, damped iteration may still walk.
PLAIN_STEPS = 8
PLAIN_DAMPING = 0.7


class Restarts:
    """What a solve knows of the restarts of each group (rows, groups); until there is `any`, it costs nothing."""

    def __init__(self, residual: Tensor) -> None:
        self.any = False
        # The best since the last restart, the best at that time, plain steps still to take, and how many the next
        # restart brings that has gained nothing.
        self.reference = self.restarted = residual
        self.plain = torch.zeros_like(residual, dtype=torch.int64)
        self.plain_next = self.plain + PLAIN_STEPS

    def due(self, residual: Tensor, best: Tensor, growth: float) -> Tensor:
        """Return the groups whose residual has grown so much above their best since the last restart."""
        reference = self.reference if self.any else best
        if self.any:
            self.reference = torch.minimum(reference, residual)
        return residual > growth * reference

    def damped(self, z: Tensor, fz: Tensor, following: Tensor) -> Tensor:
        """Return the next iterate, damped plain iteration where some of its steps are still to take."""
        following = torch.where(self.plain.unsqueeze(-1) > 0, torch.lerp(z, fz, PLAIN_DAMPING), following)
        self.plain = (self.plain - 1).clamp_min(0)
        return following

    def begin(self, restart: Tensor, fz: Tensor, following: Tensor, best: Best) -> Tensor:
        """Return where groups begin again: at the best image if it is new since the last restart, else from here."""
        news = restart & (best.residual < self.restarted)
        following = torch.where(restart.unsqueeze(-1), fz, following)
        following = torch.where(news.unsqueeze(-1), best.state()[1], following)
        # A restart that has gained nothing since the one before is followed by plain steps.
        fruitless = restart & ~news
        self.plain = torch.where(fruitless, self.plain_next, self.plain)
        self.plain_next = torch.where(fruitless, 2 * self.plain_next, self.plain_next)
        self.restarted = torch.where(restart, best.residual, self.restarted)
        self.reference = torch.where(restart, float("inf"), self.reference if self.any else best.residual)
        self.any = True
        return following

    def select(self, index: Tensor) -> None:
        """Keep these rows."""
        kept = select_rows((self.reference, self.restarted, self.plain, self.plain_next), index)
        self.reference, self.restarted, self.plain, self.plain_next = kept
