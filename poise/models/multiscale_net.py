"""The explicit peer of multiscale DEQ: the same blocks, fusion and heads, in layers with weights of their own."""

from __future__ import annotations

from torch import Tensor, nn

from poise.fixed_point.options import check_kind
from poise.models.multiscale import Architecture, MultiscaleNetwork
from poise.nn.multiscale import MultiscaleBlock, Scales, downsampling
from poise.nn.noise import dropout_mask


class MultiscaleNet(MultiscaleNetwork):
    """Stem, every scale from it by convolutions of stride 2, `layers` multiscale blocks, and the heads of `MDEQ`.

    With `expansion=1`, four layers have the parameters of one equilibrium cell of expansion 5 and the same channels,
    where there are two scales: `MultiscaleNet(replace(PRESETS["tiny"], expansion=1), layers=4)` is the peer of
    `MDEQ("tiny")`. In the manner of HRNet (Wang et al. 2020, "Deep high-resolution representation learning").

    >>> MultiscaleNet(Architecture((16, 32)), layers=2, classes=10).classify(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        architecture: Architecture,
        layers: int = 4,
        *,
        classes: int | None = None,
        pixel_classes: int | None = None,
    ) -> None:
        check_kind("MultiscaleNet", "layers", layers, "int")
        if layers < 1:
            raise ValueError(f"MultiscaleNet(layers={layers}) has no block; pass at least 1.")
        super().__init__(architecture, classes, pixel_classes)
        finest, *coarser = architecture.channels
        self.starts = nn.ModuleList(
            downsampling((*(finest,) * (scale + 1), width), architecture.groups) for scale, width in enumerate(coarser)
        )
        self.layers = nn.ModuleList(
            MultiscaleBlock(
                architecture.channels,
                expansion=architecture.expansion,
                groups=architecture.groups,
                weight_norm=architecture.weight_norm,
            )
            for _ in range(layers)
        )

    def scales(self, x: Tensor) -> Scales:
        """Return the last layer's feature maps, the finest first."""
        stemmed = self.stem(x)
        z: Scales = (stemmed, *(start(stemmed) for start in self.starts))
        p = self.architecture.dropout if self.training else 0.0
        for layer in self.layers:
            z = layer(z, None, tuple(dropout_mask(part, p) for part in z) if p else ())
        return z
