"""The cell of the DEQ-Transformer: one or a few causal blocks, the input injected into each at every evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from poise.nn.attention import BlockNoise, Norm, TransformerBlock
from poise.nn.layers import CausalLayers
from poise.nn.recall import Recalled
from poise.nn.segments import Segment


@dataclass(frozen=True)
class TransformerContext:
    """What a solve needs of its input, drawn and computed once."""

    injection: Tensor  # (batch, length, d_model)
    noise: tuple[BlockNoise, ...] = ()  # one a layer, or none
    recalled: Recalled | None = None  # what is seen of earlier positions; None where all that is seen is here


class TransformerCell(nn.Module):
    """z -> block_n(... block_1(z, x) ..., x), causal in the positions (dimension 1).

    `n_layers`: blocks. `norm`, `span`, `dropout`, `variational`: as in `CausalLayers`; masks are drawn once a solve.

    The input is a tensor (batch, length, d_model) or a `Segment` of a longer text, whose past is a `Memory` of what the
    blocks read (`inputs` returns it) or a `Cache` of their keys and values: equilibria of earlier positions, which do
    not depend on what follows, and so are computed once.

    Bai, Kolter and Koltun (2019), section 4.2. The injection is layer-normalised and added inside every block before
    its first norm, which at small width learns where an injection into queries, keys and values alone does not.
    """

    position_dim = 1

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
        self.norm_injection = nn.LayerNorm(d_model)
        self.layers = CausalLayers(
            d_model, n_heads, n_layers, d_ff, dropout, norm=norm, span=span, variational=variational
        )
        if n_layers < 1:
            raise ValueError(f"n_layers={n_layers} leaves nothing to iterate; pass at least 1.")

    def inject(self, x: Tensor | Segment) -> TransformerContext:
        """Return the context of embeddings (batch, length, d_model); dropout masks are drawn here, once a solve."""
        x, past = (x.x, x.past) if isinstance(x, Segment) else (x, None)
        return TransformerContext(self.norm_injection(x), self.layers.draw_noise(x), self.layers.recall(x, past))

    def initial_state(self, context: TransformerContext) -> Tensor:
        """Return the injection, (batch, length, d_model): from zeros the first evaluation would attend to nothing."""
        # Where the input has NaN or infinity the state starts at zero: attention would carry it to earlier positions.
        return context.injection.nan_to_num(0.0, 0.0, 0.0)

    def forward(self, z: Tensor, context: TransformerContext) -> Tensor:
        """Evaluate the cell once."""
        return self.layers.outputs(z, context.injection, context.noise, context.recalled)[-1]

    @torch.no_grad()
    def inputs(self, state: Tensor, context: TransformerContext) -> list[Tensor]:
        """Return what every block reads at a state, each (batch, length, d_model)."""
        last = len(self.blocks) - 1
        return self.layers.outputs(state, context.injection, context.noise, context.recalled, last)

    @property
    def blocks(self) -> list[TransformerBlock]:
        """The blocks."""
        return self.layers.stack
