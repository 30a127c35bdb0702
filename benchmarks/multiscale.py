"""What is a multiscale cell? Four resolutions with a residual block each, fused, the input entering at the finest.

After Bai, Koltun and Kolter (2020), "Multiscale Deep Equilibrium Models", figure 2, small and with random weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS = (8, 16, 32, 64)
SIDES = (16, 8, 4, 2)
GROUPS = 4
# A group norm undoes the scale of the convolution before it: how far the cell contracts is decided by what each norm's
# output is multiplied with. With these, and the input drawn at INPUT_SCALE, a sample contracts by 0.71 to 0.84.
BLOCK_GAIN = 0.3  # of a residual block beside the state
OWN_GAIN = 0.3  # of a coarser scale's own block in the fusion
DOWN_GAIN, UP_GAIN = 1.0, 0.25  # of the finer and of the coarser scales in the fusion
INPUT_SCALE = 4.0


@dataclass(frozen=True)
class Block:
    """Two 3 x 3 convolutions beside the state: relu(z + gain GN(conv(relu(GN(conv(z)))) + injection)), normalised."""

    first: Tensor
    second: Tensor

    def __call__(self, z: Tensor, injection: Tensor | None) -> Tensor:
        h = torch.relu(F.group_norm(F.conv2d(z, self.first, padding=1), GROUPS))
        h = F.conv2d(h, self.second, padding=1)
        h = BLOCK_GAIN * F.group_norm(h, GROUPS)
        return F.group_norm(torch.relu(z + h if injection is None else z + h + injection), GROUPS)


@dataclass(frozen=True)
class Multiscale:
    """A block at every scale, then every scale from all: strided convolutions down, 1 x 1 and nearest copies up."""

    blocks: tuple[Block, ...]
    paths: tuple[tuple[tuple[Tensor, ...], ...], ...]  # paths[to][source]: the kernels from one scale to another
    last: tuple[Tensor, ...]

    def __call__(self, z: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, ...]:
        inside = [
            block(part, x if scale == 0 else None)
            for scale, (block, part) in enumerate(zip(self.blocks, z, strict=True))
        ]
        return tuple(self._fused(scale, inside, part) for scale, part in enumerate(z))

    def _fused(self, scale: int, inside: list[Tensor], z: Tensor) -> Tensor:
        total = OWN_GAIN * inside[scale] if scale else inside[scale]
        for source, kernels in enumerate(self.paths[scale]):
            if source != scale:
                gain = UP_GAIN if source > scale else DOWN_GAIN
                total = total + gain * _moved(inside[source], kernels, source - scale)
        mixed = F.conv2d(torch.relu(total), self.last[scale])
        return F.group_norm(mixed, GROUPS)


def _moved(z: Tensor, kernels: tuple[Tensor, ...], doublings: int) -> Tensor:
    """Carry a state to another scale: up by 1 x 1 and nearest copies, down by convolutions of stride 2."""
    if doublings > 0:
        (kernel,) = kernels
        return F.interpolate(F.group_norm(F.conv2d(z, kernel), GROUPS), scale_factor=2**doublings, mode="nearest")
    for number, kernel in enumerate(kernels):
        z = F.group_norm(F.conv2d(z if number == 0 else torch.relu(z), kernel, stride=2, padding=1), GROUPS)
    return z


def multiscale(draw: Callable[..., Tensor]) -> Multiscale:
    """Draw the weights: N(0, 1 / fan_in) everywhere."""

    def kernel(into: int, of: int, side: int) -> Tensor:
        return draw(into, of, side, side) / math.sqrt(of * side**2)

    def path(to: int, source: int) -> tuple[Tensor, ...]:
        if source > to:
            return (kernel(CHANNELS[to], CHANNELS[source], 1),)
        steps = range(source, to)  # of stride 2; the channels change with the last
        return tuple(
            kernel(CHANNELS[to] if step == to - 1 else CHANNELS[source], CHANNELS[source], 3) for step in steps
        )

    scales = range(len(CHANNELS))
    return Multiscale(
        blocks=tuple(Block(kernel(width, width, 3), kernel(width, width, 3)) for width in CHANNELS),
        paths=tuple(tuple(path(to, source) for source in scales) for to in scales),
        last=tuple(kernel(width, width, 1) for width in CHANNELS),
    )
