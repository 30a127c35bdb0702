"""A small picture somewhere on a larger canvas."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.data.views.drawing import looked_up, pictures


@dataclass(frozen=True)
class Placed:
    """A view of a small picture: at a place of its own on a zero canvas, brighter or darker, with noise.

    `side`: of the canvas. `gain`: the factor is uniform in 1 - gain, 1 + gain. `noise`: its standard deviation. All is
    drawn for each sample: `view(x, generator)` takes (B, C, H, W) and returns (B, C, side, side).
    """

    side: int = 12
    gain: float = 0.2
    noise: float = 0.05

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return a view of each sample."""
        x = pictures("Placed", x)
        batch, channels, height, width = x.shape
        if max(height, width) > self.side:
            raise ValueError(f"Placed(side={self.side}) is smaller than a picture of {height}x{width}; pass more.")
        one, on = (batch, 1), generator.device
        top = torch.randint(self.side - height + 1, one, generator=generator, device=on).to(x.device)
        left = torch.randint(self.side - width + 1, one, generator=generator, device=on).to(x.device)
        factor = 1 + self.gain * (2 * torch.rand((batch, 1, 1, 1), generator=generator, device=on).to(x) - 1)
        noise = torch.randn(batch, channels, self.side, self.side, generator=generator, device=on).to(x)
        # Every pixel of the canvas looks up where it lies in the picture; outside it is zero.
        places = torch.arange(self.side, device=x.device)
        canvas = looked_up(x, places - top, places - left, outside=0.0)
        return canvas * factor + self.noise * noise
