"""The cell of multiscale DEQ: feature maps of several resolutions, one state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from poise.fixed_point.options import check_kind
from poise.nn.multiscale import Gains, MultiscaleBlock, Scales, scale_sizes
from poise.nn.noise import dropout_mask

# With gains of 1 the untrained cell does not contract: its spectral radius is about 1.4.
CONTRACTING = Gains(own=0.3, up=0.1, out=0.3)


@dataclass(frozen=True)
class MultiscaleContext:
    """What a solve needs of its input, drawn and computed once."""

    injection: Tensor  # (batch, channels[0], height, width)
    masks: Scales = ()  # one a scale, or none


class MultiscaleCell(nn.Module):
    """A `MultiscaleBlock` whose finest scale receives the input: the state is a tuple of feature maps, finest first.

    The state of scale i is (B, channels[i], H / 2^i, W / 2^i), rounded up, where the input is (B, channels[0], H, W);
    any height and width will do. All scales are solved at once, each entry weighing the same in residuals and mixing.
    `dropout`: of the residual branches in training, masks drawn once a solve; the other options are those of
    `MultiscaleBlock`. The state has the memory format of the input, so that pictures and weights in channels-last stay
    so through a solve. The norms that pass the state on begin with gains below 1, so that the untrained cell contracts;
    with gains of 1 it does not, and asks to be trained with few evaluations first. Nothing bounds the trained cell:
    whether the solver gets done is in the solution's status.

    Bai, Koltun and Kolter (2020), "Multiscale Deep Equilibrium Models", section 3.

    >>> cell = MultiscaleCell((24, 24))
    >>> [tuple(part.shape) for part in Equilibrium(cell)(torch.zeros(2, 24, 33, 32))]
    [(2, 24, 33, 32), (2, 24, 17, 16)]
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        *,
        expansion: int = 5,
        groups: int = 8,
        dropout: float = 0.0,
        weight_norm: bool = True,
    ) -> None:
        super().__init__()
        check_kind("MultiscaleCell", "dropout", dropout, "float")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} is no probability below 1; pass one in [0, 1).")
        self.channels = tuple(channels)
        self.dropout = dropout
        self.block = MultiscaleBlock(
            self.channels, expansion=expansion, groups=groups, weight_norm=weight_norm, gains=CONTRACTING
        )

    def inject(self, x: Tensor) -> MultiscaleContext:
        """Return the context of x (B, channels[0], H, W); dropout masks are drawn here, once a solve."""
        if x.dim() != 4 or x.shape[1] != self.channels[0]:
            raise ValueError(
                f"the cell injects (B, {self.channels[0]}, H, W) into its finest scale, but was given {tuple(x.shape)};"
                " bring the input to those channels first."
            )
        if not self.training or not self.dropout:
            return MultiscaleContext(x)
        return MultiscaleContext(x, tuple(dropout_mask(part, self.dropout) for part in self._zeros(x)))

    def initial_state(self, context: MultiscaleContext) -> Scales:
        """Return zeros at every scale."""
        return self._zeros(context.injection)

    def forward(self, z: Scales, context: MultiscaleContext) -> Scales:
        """Evaluate the cell once."""
        return self.block(z, context.injection, context.masks)

    def _zeros(self, x: Tensor) -> Scales:
        last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        return tuple(
            x.new_zeros(len(x), width, *size).contiguous(
                memory_format=torch.channels_last if last else torch.contiguous_format
            )
            for width, size in zip(self.channels, scale_sizes(x.shape[-2:], len(self.channels)), strict=True)
        )
