"""Causal self-attention with rotary positions, and the block that DEQ-Transformer and its explicit peer share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poise.nn.noise import dropout_mask


@dataclass(frozen=True)
class BlockNoise:
    """Dropout masks of one block, already scaled by 1 / (1 - p), each (batch, length, width): drawn once a solve."""

    attended: Tensor
    hidden: Tensor
    output: Tensor


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021): pairs of features turned by angles that grow with the position."""

    inverse_frequency: Tensor

    def __init__(self, head_dim: int, base: float = 10_000.0) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"rotary positions turn pairs of features, but a head has {head_dim}; use an even number.")
        exponent = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        self.register_buffer("inverse_frequency", base**-exponent, persistent=False)

    def forward(self, length: int, dtype: torch.dtype) -> Tensor:
        """Return the table of cosines and sines, (2, length, head_dim / 2)."""
        positions = torch.arange(length, device=self.inverse_frequency.device, dtype=torch.float32)
        angles = torch.outer(positions, self.inverse_frequency.float())
        return torch.stack((angles.cos(), angles.sin())).to(dtype)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn the pairs (first half, second half) of x (..., length, head_dim) by the table's angles."""
    cosine, sine = table
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, first * sine + second * cosine), dim=-1)


class TransformerBlock(nn.Module):
    """One post-norm causal layer: z -> LN(h + MLP(h)), h = LN(z + attention(z) + injection).

    Vaswani et al. (2017); post-norm keeps the state's size, and so its Jacobian, bounded (Bai, Kolter and Koltun 2019).
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model={d_model} is not a multiple of n_heads={n_heads}; choose one that is.")
        self.n_heads = n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.norm_attention = nn.LayerNorm(d_model)
        self.up = nn.Linear(d_model, d_ff)
        self.down = nn.Linear(d_ff, d_model)
        self.norm_output = nn.LayerNorm(d_model)

    def forward(self, z: Tensor, table: Tensor, injection: Tensor | None, noise: BlockNoise | None) -> Tensor:
        """Return the layer's output; z, injection (batch, length, d_model)."""
        batch, length, width = z.shape
        qkv = self.qkv(z).view(batch, length, 3, self.n_heads, width // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (batch, heads, length, head_dim) each
        mixed = F.scaled_dot_product_attention(rotate(q, table), rotate(k, table), v, is_causal=True)
        attended = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        if noise is not None:
            attended = attended * noise.attended
        h = z + attended if injection is None else z + attended + injection
        h = self.norm_attention(h)
        hidden = F.gelu(self.up(h))
        if noise is not None:
            hidden = hidden * noise.hidden
        output = self.down(hidden)
        if noise is not None:
            output = output * noise.output
        return self.norm_output(h + output)

    def draw_noise(self, x: Tensor, dropout: float) -> BlockNoise:
        """Draw dropout masks for inputs like x (batch, length, d_model)."""
        hidden = x.new_empty(*x.shape[:-1], self.up.out_features)
        return BlockNoise(*(dropout_mask(like, dropout) for like in (x, hidden, x)))
