"""A short causal convolution of embedded tokens, feature by feature."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poise.fixed_point.options import check_kind


class ShortConvolution(nn.Module):
    """y_t = sum over j < width of w_j x_{t-j}, for each feature by itself; width 1 is the identity.

    What stands next to each other is then mixed before any attention, which small networks otherwise spend a layer on.
    It begins as the identity. The depthwise convolution of So et al. (2021), "Primer", on the embedding alone.
    """

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        check_kind(type(self).__name__, "width", width, "int")
        if width < 1:
            raise ValueError(f"a convolution of width {width} reads nothing; pass at least 1.")
        self.width = width
        if width > 1:
            # Not a matrix that maps features to features: a leading 1 says so to optimizers that ask.
            self.weight = nn.Parameter(torch.zeros(1, width, d_model))
            nn.init.ones_(self.weight[:, 0])

    def forward(
        self, x: Tensor, before: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return y of a segment x (batch, length, d_model), and what the next segment needs of it.

        `before`: what it returned second for the segment before, (batch, width - 1, d_model), detached; None at the
        start of a text, where zeros stand. `lengths` (batch,): how many positions count, the rest being padding at the
        right.
        """
        if self.width == 1:
            return x, None
        past = self.width - 1
        before = x.new_zeros(len(x), past, x.shape[2]) if before is None else before
        joined = torch.cat([before, x], dim=1)
        shifted = [joined[:, past - j : past - j + x.shape[1]] * self.weight[:, j] for j in range(self.width)]
        if lengths is None:
            return sum(shifted[1:], shifted[0]), joined[:, x.shape[1] :].detach()
        places = lengths[:, None] + torch.arange(past, device=x.device)
        last = joined.detach().gather(1, places[:, :, None].expand(-1, -1, x.shape[2]))
        return sum(shifted[1:], shifted[0]), last
