"""Several linear maps of one input, in one product."""

from __future__ import annotations

from torch import nn


class StackedLinear(nn.Linear):
    """`maps` linear maps to `out_features` each, their outputs one after another: (..., maps * out_features).

    The weight holds one matrix a map, below each other. What it means for an optimizer that looks at whole matrices
    (Muon) is that there are `maps` of them.
    """

    def __init__(self, in_features: int, out_features: int, maps: int, bias: bool = True) -> None:
        super().__init__(in_features, maps * out_features, bias)
        self.maps = maps
