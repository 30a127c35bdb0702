"""Causal Transformer layers, one after another: in a DEQ's cell, around it, and in its explicit peer."""

from __future__ import annotations

from torch import Tensor, nn

from poise.fixed_point.options import check_kind
from poise.nn.attention import BlockNoise, Norm, Rotary, Table, TransformerBlock
from poise.nn.recall import Past, Recalled, recall


class CausalLayers(nn.Module):
    """`n_layers` causal Transformer layers, one after another; none is the identity.

    `norm`: as in `TransformerBlock`. `span`: how many positions one sees, itself among them (local attention); None is
    all. `dropout`: of each layer's branches in training. `variational`: a sample's masks are the same at all positions
    (Gal and Ghahramani 2016).
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_layers: int,
        d_ff: int,
        dropout: float = 0.0,
        *,
        norm: Norm = "post",
        span: int | None = None,
        variational: bool = False,
    ) -> None:
        super().__init__()
        check_kind(type(self).__name__, "n_layers", n_layers, "int")
        check_kind(type(self).__name__, "dropout", dropout, "float")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} is no probability below 1; pass one in [0, 1).")
        if span is not None and span < 1:
            raise ValueError(f"span={span} leaves nothing to attend to; pass at least 1, or None for all positions.")
        self.dropout = dropout
        self.span = span
        self.variational = variational
        self.rotary = Rotary(d_model // n_heads)
        self.blocks = nn.ModuleList(TransformerBlock(d_model, n_heads, d_ff, norm) for _ in range(n_layers))

    def forward(self, x: Tensor, past: Past | None = None) -> list[Tensor]:
        """Return what every layer reads, and the output of the last, each (batch, length, d_model)."""
        return self.outputs(x, None, self.draw_noise(x), self.recall(x, past))

    def outputs(
        self,
        x: Tensor,
        injection: Tensor | None,
        noise: tuple[BlockNoise, ...],
        recalled: Recalled | None,
        n_layers: int | None = None,
    ) -> list[Tensor]:
        """Return x and the output of each of the first layers; `injection`, `noise`: as in `TransformerBlock`."""
        table: Table = self.rotary.first(x.shape[1], x) if recalled is None else recalled.table
        bias = None if recalled is None else recalled.bias
        found = [x]
        for place, block in enumerate(self.stack[:n_layers]):
            past = None if recalled is None else recalled.of(place)
            injected = injection if place == 0 or block.norm == "post" else None
            found.append(block(found[-1], table, injected, noise[place] if noise else None, past, bias))
        return found

    def recall(self, x: Tensor, past: Past | None) -> Recalled | None:
        """Return what a segment x (batch, length, d_model) sees of a past and of itself, as in `recall`."""
        return recall(x, past, self.stack, self.rotary, self.span) if self.stack else None

    def draw_noise(self, x: Tensor) -> tuple[BlockNoise, ...]:
        """Draw dropout masks for inputs like x (batch, length, d_model), one a layer; none outside of training."""
        if not (self.training and self.dropout):
            return ()
        return tuple(block.draw_noise(x, self.dropout, self.variational) for block in self.stack)

    @property
    def stack(self) -> list[TransformerBlock]:
        """The layers, in order."""
        return list(self.blocks)  # type: ignore[arg-type]
