"""The layer of TrellisNet: a causal convolution of two positions, gated as an LSTM."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from poise.fixed_point.options import check_kind
from poise.nn.noise import dropout_mask
from poise.nn.normalization import normalize
from poise.nn.segments import Segment

# Of the weights of h, times 1 / sqrt(d_hidden). The untrained cell then has a spectral radius near 0.08 at any width,
# and a Jacobian of norm 0.4 over 16 positions.
HIDDEN_GAIN = 0.3

TrellisState = tuple[Tensor, Tensor]  # h and c, (batch, length, d_hidden) each


@dataclass(frozen=True)
class TrellisPast:
    """The position before a segment."""

    h: Tensor  # (batch, d_hidden)
    c: Tensor  # (batch, d_hidden)
    x: Tensor  # (batch, d_model), normalised


@dataclass(frozen=True)
class TrellisContext:
    """What a solve needs of its input, drawn and computed once."""

    injection: Tensor  # (batch, length, 4 d_hidden)
    h: Tensor  # (batch, 1, d_hidden), before the first position
    c: Tensor  # (batch, 1, d_hidden), before the first position
    inputs: Tensor  # (batch, 1 + length, d_model), normalised, from the position before the first; for `remember` alone
    mask: Tensor | None = None  # (batch, 1, d_hidden), dropout


class TrellisLayer(nn.Module):
    """(h, c) of one layer to those of the next, causal in the positions (dimension 1).

    i, f, g, o = W1 [x_{t-1}; h_{t-1}] + W2 [x_t; h_t] + b, then c'_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g) and
    h'_t = sigmoid(o) tanh(c'_t); before the first position stand zeros, or the last position of the segment before.
    `d_model`, `d_hidden`: widths of x and of h and c. `dropout`: of h in training, one mask a sample for all positions
    and layers. `weight_norm`: the weights are normalised, with `poise.nn.normalize`. x is layer-normalised first, so
    that the scale of embeddings is free to suit the head.

    Bai, Kolter and Koltun (2019), "Trellis Networks for Sequence Modeling", equation 1 and section 5, with kernels of
    size 2 and dilation 1.
    """

    position_dim = 1

    def __init__(self, d_model: int, d_hidden: int, *, dropout: float = 0.0, weight_norm: bool = True) -> None:
        super().__init__()
        name = type(self).__name__
        check_kind(name, "dropout", dropout, "float")
        for option, width in (("d_model", d_model), ("d_hidden", d_hidden)):
            check_kind(name, option, width, "int")
            if width < 1:
                raise ValueError(f"{name}({option}={width}) has no features; pass at least 1.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} is no probability below 1; pass one in [0, 1).")
        self.d_hidden = d_hidden
        self.dropout = dropout
        self.norm = nn.LayerNorm(d_model)
        # Each reads [the position before; the position], rows in the order i, f, g, o.
        self.input = nn.Linear(2 * d_model, 4 * d_hidden)
        self.hidden = nn.Linear(2 * d_hidden, 4 * d_hidden, bias=False)
        nn.init.normal_(self.input.weight, std=(2 * d_model) ** -0.5)
        nn.init.zeros_(self.input.bias)
        nn.init.normal_(self.hidden.weight, std=HIDDEN_GAIN * d_hidden**-0.5)
        if weight_norm:
            normalize(self.input, "weight")
            normalize(self.hidden, "weight")

    def inject(self, x: Tensor | Segment) -> TrellisContext:
        """Return the context of embeddings x (batch, length, d_model); the dropout mask is drawn here."""
        segment = x if isinstance(x, Segment) else Segment(x)
        x, past = segment.x, segment.past
        if past is None:
            zeros = x.new_zeros(len(x), self.d_hidden)
            past = TrellisPast(zeros, zeros, x.new_zeros(len(x), x.shape[-1]))
        if len(past.h) != len(x):
            raise ValueError(
                f"the past holds {len(past.h)} samples, but the segment {len(x)}; pass what `remember` returned for "
                "these samples, or None."
            )
        inputs = torch.cat([past.x.unsqueeze(1), self.norm(x)], dim=1)
        h, c = past.h.unsqueeze(1), past.c.unsqueeze(1)
        mask = dropout_mask(h, self.dropout) if self.training and self.dropout else None
        return TrellisContext(self.input(pairs(inputs)), h, c, inputs.detach(), mask)

    def initial_state(self, context: TrellisContext) -> TrellisState:
        """Return zeros for h and c."""
        zeros = context.h.new_zeros(*context.injection.shape[:2], self.d_hidden)
        return zeros, torch.zeros_like(zeros)

    def remember(self, state: TrellisState, context: TrellisContext, lengths: Tensor | None = None) -> TrellisPast:
        """Return what the next segment needs of this one, detached: its last position.

        `lengths`: (batch,) int64, how many of a sample's positions count, from 0 to all (default: all).
        """
        length = state[0].shape[1]
        if lengths is None:
            lengths = torch.full(state[0].shape[:1], length, device=state[0].device)
        elif lengths.shape != state[0].shape[:1]:
            raise ValueError(f"lengths has shape {tuple(lengths.shape)}; pass one of ({len(state[0])},).")
        rows = torch.arange(len(lengths), device=lengths.device)
        h, c = (torch.cat(part, dim=1) for part in zip((context.h, context.c), state, strict=True))
        return TrellisPast(*(part[rows, lengths].detach() for part in (h, c, context.inputs)))

    def forward(self, z: TrellisState, context: TrellisContext) -> TrellisState:
        """Return the next layer's state."""
        before = torch.cat([context.c, z[1][:, :-1]], dim=1)
        forget, update, output = self.gates(z[0], context)
        c = torch.addcmul(update, forget, before)
        return output * torch.tanh(c), c

    def gates(self, h: Tensor, context: TrellisContext) -> tuple[Tensor, Tensor, Tensor]:
        """Return sigmoid(f), sigmoid(i) tanh(g) and sigmoid(o), (batch, length, d_hidden) each."""
        h = torch.cat([context.h, h], dim=1)
        if context.mask is not None:
            h = h * context.mask
        i, f, g, o = (self.hidden(pairs(h)) + context.injection).chunk(4, dim=-1)
        return torch.sigmoid(f), torch.sigmoid(i) * torch.tanh(g), torch.sigmoid(o)


def pairs(positions: Tensor) -> Tensor:
    """Return (batch, length, 2 width), each position after the one before it, of (batch, 1 + length, width)."""
    return torch.cat([positions[:, :-1], positions[:, 1:]], dim=-1)
