"""The cell of the DEQ-Transformer: one or a few causal blocks, the input injected into each at every evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from poise.fixed_point.options import check_kind
from poise.nn.attention import BlockNoise, Rotary, TransformerBlock


@dataclass(frozen=True)
class TransformerContext:
    """What a solve needs of its input, drawn and computed once."""

    injection: Tensor  # (batch, length, d_model)
    noise: tuple[BlockNoise, ...] = ()  # one a layer, or none


class TransformerCell(nn.Module):
    """z -> block_n(... block_1(z, x) ..., x), causal in the positions (dimension 1).

    Bai, Kolter and Koltun (2019), section 4.2. The injection is layer-normalised and added inside every block before
    its first norm, which at small width learns where an injection into queries, keys and values alone does not.
    """

    position_dim = 1

    def __init__(self, d_model: int, n_heads: int, n_layers: int, d_ff: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_kind("TransformerCell", "n_layers", n_layers, "int")
        check_kind("TransformerCell", "dropout", dropout, "float")
        if n_layers < 1:
            raise ValueError(f"n_layers={n_layers} leaves nothing to iterate; pass at least 1.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} is no probability below 1; pass one in [0, 1).")
        self.dropout = dropout
        self.norm_injection = nn.LayerNorm(d_model)
        self.rotary = Rotary(d_model // n_heads)
        self.blocks = nn.ModuleList(TransformerBlock(d_model, n_heads, d_ff) for _ in range(n_layers))

    def inject(self, x: Tensor) -> TransformerContext:
        """Return the context of embeddings x (batch, length, d_model); dropout masks are drawn here, once a solve."""
        noise: tuple[BlockNoise, ...] = ()
        if self.training and self.dropout:
            noise = tuple(block.draw_noise(x, self.dropout) for block in self.blocks)  # type: ignore[operator]
        return TransformerContext(self.norm_injection(x), noise)

    def initial_state(self, context: TransformerContext) -> Tensor:
        """Return zeros, (batch, length, d_model)."""
        return torch.zeros_like(context.injection)

    def forward(self, z: Tensor, context: TransformerContext) -> Tensor:
        """Evaluate the cell once."""
        table = self.rotary(z.shape[1], z.dtype)
        noise = context.noise or (None,) * len(self.blocks)
        for block, mask in zip(self.blocks, noise, strict=True):
            z = block(z, table, context.injection, mask)
        return z
