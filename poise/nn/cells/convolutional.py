"""The convolutional cell: a residual pair of 3x3 convolutions with group norm."""

from __future__ import annotations

from torch import Tensor, nn

from poise.nn.cells.views import Views, each_view

WEIGHT_STD = 0.01


class ConvCell(nn.Module):
    """z -> GN(relu(z + GN(W2 relu(GN(W1 z)) + BN(U x)))), W1, W2 and U being 3x3 convolutions.

    `groups`: of the group norms, which look at one sample alone. `stride`: of the injection U; the state has its
    output's resolution. Batch norm stands outside the equilibrium map. The residual block of Bai, Koltun and Kolter
    (2020), "Multiscale deep equilibrium models", section 3, at one resolution, weights from N(0, 0.01) as there.
    Nothing bounds it: whether the solver gets done is in the solution's status.
    """

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1, groups: int = 8) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"channels={channels} do not divide into groups={groups}; pass a multiple.")
        self.injection = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm_first, self.norm_second, self.norm_state = (nn.GroupNorm(groups, channels) for _ in range(3))
        for convolution in (self.first, self.second):
            nn.init.normal_(convolution.weight, std=WEIGHT_STD)

    def inject(self, x: Views) -> Tensor:
        """Return the context (batch, channels, height, width) of pictures, or of several views one after another."""
        return each_view(self.injection, x)

    def forward(self, z: Tensor, context: Tensor) -> Tensor:
        """Evaluate the cell once; z and context are (batch, channels, height, width)."""
        hidden = self.norm_first(self.first(z)).relu_()
        return self.norm_state((z + self.norm_second(self.second(hidden) + context)).relu_())
