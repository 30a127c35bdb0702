"""The gradient of the solver's own steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from poise.fixed_point.adjoints.base import Adjoint, Attachment, detached_state


@dataclass(frozen=True)
class Unrolled(Adjoint):
    """Record every evaluation of the solve and differentiate through them: exact for the budget, memory grows with it.

    `checkpoint`: keep only the states and evaluate again in the backward (Chen et al. 2016). What was evaluated is
    differentiated, so a sample that turns NaN spoils the parameters' gradient here.
    """

    checkpoint: bool = False

    records_solve: ClassVar[bool] = True

    def attach(self, attachment: Attachment) -> Any:
        """Return the state; the solve was recorded."""
        if torch.is_grad_enabled():
            attachment.tally.solves += 1
            attachment.tally.evaluations += attachment.found.evaluations
        return detached_state(attachment)
