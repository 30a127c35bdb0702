"""One layer of a network at several resolutions: a residual block at each, then every one from all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from poise.fixed_point.options import check_kind
from poise.nn.normalization import normalize

WEIGHT_STD = 0.01

Scales = tuple[Tensor, ...]  # feature maps (batch, channels, height, width), the finest first


@dataclass(frozen=True)
class Gains:
    """What the norms that pass feature maps on multiply by at the start.

    A group norm undoes the scale of the convolution before it, so that these decide how far the block contracts.
    """

    own: float = 1.0  # of a coarser scale's residual block in the fusion, beside what comes down to it
    up: float = 1.0  # of coarser scales in the fusion of a finer one
    out: float = 1.0  # of what the block returns


class MultiscaleBlock(nn.Module):
    """Residual blocks, then fusion: (z_1, ..., z_n) to feature maps of the same shapes.

    `channels`: of each scale, the finest first. `expansion`: a residual block is so many times as wide inside.
    `groups`: of the group norms, which look at one sample alone; the last one has half as many. `weight_norm`: the
    residual blocks' and the last convolutions' weights are normalised, with `poise.nn.normalize`. Weights begin as
    N(0, 0.01). Each scale has half the height and width of the one before, rounded up (`scale_sizes`).

    Bai, Koltun and Kolter (2020), "Multiscale Deep Equilibrium Models", section 3.1 and figure 2, groups and
    normalisation as in its published code. Raises ValueError for channels that do not divide into the groups.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        *,
        expansion: int = 5,
        groups: int = 8,
        weight_norm: bool = True,
        gains: Gains = Gains(),
    ) -> None:
        super().__init__()
        for name, value in (("expansion", expansion), ("groups", groups)):
            check_kind("MultiscaleBlock", name, value, "int")
            if value < 1:
                raise ValueError(f"MultiscaleBlock({name}={value}) leaves no channels; pass at least 1.")
        if not channels:
            raise ValueError("MultiscaleBlock(channels=()) has no scale; pass the channels of one or more.")
        for width in channels:
            if width < 1 or width % groups:
                raise ValueError(f"channels={width} do not divide into groups={groups}; pass a multiple.")
        residuals = [
            ResidualBlock(width, expansion, groups, gain=gains.own if scale else 1.0)
            for scale, width in enumerate(channels)
        ]
        merges = [Merge(channels, scale, groups, gains) for scale in range(len(channels))]
        for layer in [layer for part in (*residuals, *merges) for layer in part.modules()]:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=WEIGHT_STD)
        if weight_norm:
            for part in (*residuals, *(merge.mixer for merge in merges)):
                normalize(part, "weight")
        self.residuals = nn.ModuleList(residuals)
        self.merges = nn.ModuleList(merges)

    def forward(self, z: Scales, injection: Tensor | None = None, masks: Scales = ()) -> Scales:
        """Evaluate once: `injection` (B, channels[0], H, W) enters the finest scale, `masks` (or none) all of them."""
        refined = tuple(
            residual(part, None if scale else injection, masks[scale] if masks else None)
            for scale, (residual, part) in enumerate(zip(self.residuals, z, strict=True))
        )
        return tuple(merge(refined) for merge in self.merges)


class ResidualBlock(nn.Module):
    """z -> GN(relu(z + GN(mask * W2 relu(GN(W1 z)) + injection))), W1 and W2 being 3x3 convolutions."""

    def __init__(self, channels: int, expansion: int, groups: int, gain: float) -> None:
        super().__init__()
        self.widen = nn.Conv2d(channels, expansion * channels, 3, padding=1, bias=False)
        self.narrow = nn.Conv2d(expansion * channels, channels, 3, padding=1, bias=False)
        self.norm_inside = nn.GroupNorm(groups, expansion * channels)
        self.norm_residual = nn.GroupNorm(groups, channels)
        self.norm_out = group_norm(groups, channels, gain)

    def forward(self, z: Tensor, injection: Tensor | None, mask: Tensor | None) -> Tensor:
        """Return (B, channels, H, W), the shape of all that is given."""
        # In place: norms keep their input, not their output, and new memory costs as much as the arithmetic.
        residual = self.narrow(self.norm_inside(self.widen(z)).relu_())
        if mask is not None:
            residual = residual * mask
        if injection is not None:
            residual = residual + injection
        return self.norm_out((z + self.norm_residual(residual)).relu_())


class Merge(nn.Module):
    """The sum of all scales at one of them, then ReLU, a 1x1 convolution and a group norm of half the groups.

    A finer scale comes down by a chain of 3x3 convolutions of stride 2, the channels changing with the last. A coarser
    one comes up by a 1x1 convolution, a group norm and copies of each pixel; where the finer height or width is odd the
    last row or column of copies is cut off, so that pixel (i, j) always receives the coarser (i // 2, j // 2).
    """

    def __init__(self, channels: tuple[int, ...], scale: int, groups: int, gains: Gains) -> None:
        super().__init__()
        width = channels[scale]
        self.scale = scale
        self.downs = nn.ModuleList(
            downsampling((*(channels[finer],) * (scale - finer), width), groups) for finer in range(scale)
        )
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(coarser, width, 1, bias=False), group_norm(groups, width, gains.up))
            for coarser in channels[scale + 1 :]
        )
        self.mixer = nn.Conv2d(width, width, 1, bias=False)
        self.norm = group_norm(max(1, groups // 2), width, gains.out)

    def forward(self, z: Scales) -> Tensor:
        """Return the feature map of its scale."""
        total = z[self.scale]
        for down, finer in zip(self.downs, z[: self.scale], strict=True):
            total = total + down(finer)
        # From the coarsest on, each sum is doubled and added to the next, so that only one copy is of full size.
        above: Tensor | None = None
        for up, coarser in reversed(list(zip(self.ups, z[self.scale + 1 :], strict=True))):
            part = up(coarser)
            above = part if above is None else part + doubled(above, part)
        if above is not None:
            total = total + doubled(above, total)
        return self.norm(self.mixer(total.relu_()))  # a sum of this call, or of one scale the norm's output


def group_norm(groups: int, channels: int, gain: float) -> nn.GroupNorm:
    """Return a group norm whose weights begin as `gain`."""
    norm = nn.GroupNorm(groups, channels)
    nn.init.constant_(norm.weight, gain)
    return norm


def downsampling(channels: tuple[int, ...], groups: int) -> nn.Sequential:
    """Return 3x3 convolutions of stride 2 from each number of channels to the next, normalised, with ReLU between."""
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        if layers:
            layers.append(nn.ReLU(inplace=True))
        layers += [nn.Conv2d(before, after, 3, 2, padding=1, bias=False), nn.GroupNorm(groups, after)]
    return nn.Sequential(*layers)


def doubled(coarse: Tensor, like: Tensor) -> Tensor:
    """Return every pixel of (B, C, h, w) four times, cut to the height and width of `like`."""
    height, width = like.shape[-2:]
    return F.interpolate(coarse, scale_factor=2, mode="nearest")[..., :height, :width]


def scale_sizes(size: Sequence[int], scales: int) -> tuple[tuple[int, int], ...]:
    """Return the height and width of every scale, each half of the one before, rounded up."""
    height, width = size
    return tuple((-(-height // 2**scale), -(-width // 2**scale)) for scale in range(scales))
