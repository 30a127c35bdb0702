"""The phantom gradient: a few damped steps from the solution, differentiated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from poise.fixed_point.adjoints.base import Adjoint, Attachment, derivatives_wanted, detached_state, on_usable_rows
from poise.fixed_point.adjoints.implicit import Implicit
from poise.fixed_point.linear import Neumann
from poise.fixed_point.packed import PackedCell


@dataclass(frozen=True)
class Phantom(Adjoint):
    """The gradient of z' = (1 - damping) z + damping f(z), `steps` times from the solution (Geng et al. 2021).

    At a fixed point of spectral radius rho its error falls as (1 - damping + damping rho)^steps. `form`: how it is had.
    "unrolled" (equation 7) records the steps, holds `steps` evaluations for the backward, and returns the last of them
    as the state, whether or not gradients are recorded, so that training and evaluation see one model. "neumann"
    (equation 8) returns the solve's own output, holds one evaluation, and sums the `steps` terms of the series with
    `steps` - 1 products in the backward; the two agree at a fixed point. `recorded_only`: the unrolled steps are taken
    only where gradients are recorded, and elsewhere the state is the solve's own: what a solve costs, and what its
    budget means, is then what it says.
    """

    steps: int = 5
    damping: float = 1.0
    form: Literal["unrolled", "neumann"] = "unrolled"
    recorded_only: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in ("unrolled", "neumann"):
            raise ValueError(f"Phantom(form={self.form!r}) is unknown; pass 'unrolled' or 'neumann'.")
        if self.steps < 1:
            raise ValueError(f"Phantom(steps={self.steps}) records nothing; pass at least 1.")
        if self.steps < 2 and self.form == "neumann":
            raise ValueError("Phantom(steps=1, form='neumann') makes no product; pass at least 2, or JacobianFree().")
        if not 0 < self.damping <= 1:
            raise ValueError(f"Phantom(damping={self.damping}) does not move; pass a number in (0, 1].")

    @property
    def records(self) -> bool:
        """Whether gradients go through recorded operations alone."""
        return self.form == "unrolled"

    def attach(self, attachment: Attachment) -> Any:
        """Return the state after the recorded steps, or the solve's own with the gradient of the series."""
        if self.form == "neumann":
            return Implicit(Neumann(terms=self.steps - 1, damping=self.damping)).attach(attachment)

        if self.recorded_only and not derivatives_wanted():
            return detached_state(attachment)

        def attach(cell: PackedCell, z: Tensor, fz: Tensor) -> Tensor:
            state = fz.detach()
            for _ in range(self.steps):
                image = cell(state)
                state = image if self.damping == 1.0 else torch.lerp(state, image, self.damping)
            return state

        if torch.is_grad_enabled():
            attachment.ledger.tally.solves += 1
            attachment.ledger.tally.evaluations += self.steps
        return on_usable_rows(attachment, attach)
