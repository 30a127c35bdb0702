"""The phantom gradient: a few damped steps from the solution, recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from poise.fixed_point.adjoints.base import Adjoint, Attachment, on_usable_rows
from poise.fixed_point.packed import PackedCell


@dataclass(frozen=True)
class Phantom(Adjoint):
    """z' = (1 - damping) z + damping f(z), `steps` times from the solution, differentiated (Geng et al. 2021, eq. 7).

    The state returned is the last of these steps, whether or not gradients are recorded, so that training and
    evaluation see one model. Holds `steps` evaluations for the backward. Its error falls with `steps`.
    """

    steps: int = 5
    damping: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"Phantom(steps={self.steps}) records nothing; pass at least 1.")
        if not 0 < self.damping <= 1:
            raise ValueError(f"Phantom(damping={self.damping}) does not move; pass a number in (0, 1].")

    def attach(self, attachment: Attachment) -> Any:
        """Return the state after the recorded steps."""

        def attach(cell: PackedCell, z: Tensor, fz: Tensor) -> Tensor:
            state = fz.detach()
            for _ in range(self.steps):
                image = cell(state)
                state = image if self.damping == 1.0 else torch.lerp(state, image, self.damping)
            return state

        if torch.is_grad_enabled():
            attachment.tally.solves += 1
            attachment.tally.evaluations += self.steps
        return on_usable_rows(attachment, attach)
