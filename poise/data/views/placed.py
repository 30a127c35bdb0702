"""A small picture somewhere on a larger canvas."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.data.views.drawing import pictures


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
        one, on = (batch, 1, 1, 1), generator.device
        top = torch.randint(self.side - height + 1, one, generator=generator, device=on).to(x.device)
        left = torch.randint(self.side - width + 1, one, generator=generator, device=on).to(x.device)
        factor = 1 + self.gain * (2 * torch.rand(one, generator=generator, device=on).to(x) - 1)
        noise = torch.randn(batch, channels, self.side, self.side, generator=generator, device=on).to(x)
        # Every pixel of the canvas looks up where it lies in the picture; outside it is zero.
        rows = torch.arange(self.side, device=x.device).view(1, 1, -1, 1) - top
        columns = torch.arange(self.side, device=x.device).view(1, 1, 1, -1) - left
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        place = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
        looked_up = x.flatten(2).gather(2, place.flatten(2).expand(-1, channels, -1))
        canvas = torch.where(inside, looked_up.view(batch, channels, self.side, self.side), 0.0)
        return canvas * factor + self.noise * noise
