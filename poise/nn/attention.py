"""Causal self-attention with rotary positions, and the block that DEQ-Transformer and its explicit peer share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poise.nn.noise import dropout_mask
from poise.nn.stacked import StackedLinear

Table = tuple[Tensor, Tensor]  # cosines and sines, (..., length, head_dim / 2)
Norm = Literal["post", "pre"]


@dataclass(frozen=True)
class BlockNoise:
    """Dropout masks of one block, already scaled by 1 / (1 - p), each (batch, length or 1, width)."""

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

    def forward(self, positions: Tensor, dtype: torch.dtype) -> Table:
        """Return the table of positions (..., length)."""
        angles = positions[..., None].float() * self.inverse_frequency.float()
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def first(self, length: int, like: Tensor) -> Table:
        """Return the table of positions 0, 1, ..., of a tensor's dtype."""
        return self(torch.arange(length, device=self.inverse_frequency.device), like.dtype)


def rotate(x: Tensor, table: Table) -> Tensor:
    """Turn the pairs (first half, second half) of x (..., length, head_dim) by the table's angles."""
    cosine, sine = table
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, first * sine + second * cosine), dim=-1)


class TransformerBlock(nn.Module):
    """One causal layer: attention and the input's injection, then two linear maps, each around a shortcut.

    `norm`: "post" is z -> LN(h + MLP(h)), h = LN(z + attention(z) + injection) (Vaswani et al. 2017), which keeps the
    state's size, and so its Jacobian, bounded (Bai, Kolter and Koltun 2019). "pre" is h + MLP(LN(h)),
    h = z + attention(LN(z)) (Xiong et al. 2020); with an injection, that takes the place of z in h: with both, a fixed
    point has attention and MLP undo the injection, which a fresh block never does.
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int, norm: Norm = "post") -> None:
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model={d_model} is not a multiple of n_heads={n_heads}; choose one that is.")
        if norm not in get_args(Norm):
            raise ValueError(f"norm={norm!r} is unknown; pass 'post' or 'pre'.")
        self.n_heads = n_heads
        self.norm = norm
        self.qkv = StackedLinear(d_model, d_model, maps=3, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.norm_attention = nn.LayerNorm(d_model)
        self.up = nn.Linear(d_model, d_ff)
        self.down = nn.Linear(d_ff, d_model)
        self.norm_output = nn.LayerNorm(d_model)

    def forward(
        self,
        z: Tensor,
        table: Table,
        injection: Tensor | None,
        noise: BlockNoise | None,
        past: tuple[Tensor, Tensor] | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Return the layer's output; z, injection (batch, length, d_model).

        `past`: keys and values (batch, heads, past, head_dim) of earlier positions. `bias`: (batch, 1, length, past +
        length), added to the scores; without one, a position sees all before it.
        """
        q, k, v = self.project(z, table)
        attended = self.out(attend(q, k, v, past, bias).transpose(1, 2).reshape(z.shape))
        if noise is not None:
            attended = attended * noise.attended
        if injection is None:
            h = z + attended
        else:
            h = z + attended + injection if self.norm == "post" else attended + injection
        if self.norm == "post":
            h = self.norm_attention(h)
        hidden = F.gelu(self.up(h if self.norm == "post" else self.norm_output(h)))
        if noise is not None:
            hidden = hidden * noise.hidden
        output = self.down(hidden)
        if noise is not None:
            output = output * noise.output
        return self.norm_output(h + output) if self.norm == "post" else h + output

    def project(self, z: Tensor, table: Table) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of z, (batch, heads, length, head_dim), the first two turned."""
        batch, length, width = z.shape
        read = z if self.norm == "post" else self.norm_attention(z)
        qkv = self.qkv(read).view(batch, length, 3, self.n_heads, width // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return rotate(q, table), rotate(k, table), v

    def draw_noise(self, x: Tensor, dropout: float, variational: bool = False) -> BlockNoise:
        """Draw dropout masks for inputs like x (batch, length, d_model); variational: one for all positions."""
        x = x[:, :1] if variational else x
        hidden = x.new_empty(*x.shape[:-1], self.up.out_features)
        return BlockNoise(*(dropout_mask(like, dropout) for like in (x, hidden, x)))


def attend(
    q: Tensor, k: Tensor, v: Tensor, past: tuple[Tensor, Tensor] | None = None, bias: Tensor | None = None
) -> Tensor:
    """Return the values mixed by attention, (batch, heads, length, head_dim); arguments as in `TransformerBlock`."""
    if past is None or bias is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=bias is None)
    keys, values = past
    if q.shape[2] > 1:
        keys, values = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=bias)
    # One position, as in decoding, in two parts: joining would copy all of the past at every evaluation.
    scores = torch.cat([q @ keys.transpose(-1, -2), q @ k.transpose(-1, -2)], dim=-1)
    weights = torch.softmax(scores / q.shape[-1] ** 0.5 + bias, dim=-1).to(v.dtype)
    before = keys.shape[2]
    return weights[..., :before] @ values + weights[..., before:] @ v
