"""The cell of the DEQ-Transformer: one or a few causal blocks, the input injected into each at every evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from poise.fixed_point.options import check_kind
from poise.nn.attention import BlockNoise, Norm, Rotary, Table, TransformerBlock
from poise.nn.recall import Cache, Memory, Recalled, cached, recall, remembered
from poise.nn.segments import Segment


@dataclass(frozen=True)
class TransformerContext:
    """What a solve needs of its input, drawn and computed once."""

    injection: Tensor  # (batch, length, d_model)
    noise: tuple[BlockNoise, ...] = ()  # one a layer, or none
    recalled: Recalled | None = None  # what is seen of earlier positions; None where all that is seen is here


class TransformerCell(nn.Module):
    """z -> block_n(... block_1(z, x) ..., x), causal in the positions (dimension 1).

    `n_layers`: blocks. `norm`: as in `TransformerBlock`. `span`: how many positions one sees, itself among them (local
    attention); None is all. `dropout`: of each block's branches in training, masks drawn once a solve.

    The input is a tensor (batch, length, d_model) or a `Segment` of a longer text, whose past is a `Memory` (what
    `remember` returns) or a `Cache` (what `cache` returns): keys and values of earlier equilibria, which do not depend
    on what follows, and so are computed once.

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
    ) -> None:
        super().__init__()
        check_kind("TransformerCell", "n_layers", n_layers, "int")
        check_kind("TransformerCell", "dropout", dropout, "float")
        if n_layers < 1:
            raise ValueError(f"n_layers={n_layers} leaves nothing to iterate; pass at least 1.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} is no probability below 1; pass one in [0, 1).")
        if span is not None and span < 1:
            raise ValueError(f"span={span} leaves nothing to attend to; pass at least 1, or None for all positions.")
        self.dropout = dropout
        self.span = span
        self.norm_injection = nn.LayerNorm(d_model)
        self.rotary = Rotary(d_model // n_heads)
        self.blocks = nn.ModuleList(TransformerBlock(d_model, n_heads, d_ff, norm) for _ in range(n_layers))

    def inject(self, x: Tensor | Segment) -> TransformerContext:
        """Return the context of embeddings (batch, length, d_model); dropout masks are drawn here, once a solve."""
        x, past = (x.x, x.past) if isinstance(x, Segment) else (x, None)
        noise: tuple[BlockNoise, ...] = ()
        if self.training and self.dropout:
            noise = tuple(block.draw_noise(x, self.dropout) for block in self._blocks)
        return TransformerContext(self.norm_injection(x), noise, recall(x, past, self._blocks, self.rotary, self.span))

    def initial_state(self, context: TransformerContext) -> Tensor:
        """Return zeros, (batch, length, d_model)."""
        return torch.zeros_like(context.injection)

    def forward(self, z: Tensor, context: TransformerContext) -> Tensor:
        """Evaluate the cell once."""
        return self._read(z, context)[-1]

    def remember(self, state: Tensor, context: TransformerContext, past: Memory | None, length: int) -> Memory | None:
        """Return the memory of the last `length` positions: of `past`, and of a segment with that equilibrium."""
        return remembered(past, self.inputs(state, context), length) if length else None

    def cache(self, state: Tensor, context: TransformerContext, past: Cache, lengths: Tensor | None = None) -> Cache:
        """Return the cache with a segment after it whose equilibrium is `state`; `lengths` as in `cached`."""
        return cached(past, self.inputs(state, context), self._blocks, self.rotary, lengths)

    @torch.no_grad()
    def inputs(self, state: Tensor, context: TransformerContext) -> list[Tensor]:
        """Return what every block reads at a state, each (batch, length, d_model)."""
        return self._read(state, context, len(self.blocks) - 1)

    def _read(self, z: Tensor, context: TransformerContext, layers: int | None = None) -> list[Tensor]:
        """Return z and the output of each of the first layers."""
        recalled = context.recalled
        table: Table = self.rotary.first(z.shape[1], z) if recalled is None else recalled.table
        bias = None if recalled is None else recalled.bias
        noise = context.noise or (None,) * len(self.blocks)
        found = [z]
        for place, block in enumerate(self._blocks[:layers]):
            past = None if recalled is None else recalled.of(place)
            injection = context.injection if place == 0 or block.norm == "post" else None
            found.append(block(found[-1], table, injection, noise[place], past, bias))
        return found

    @property
    def _blocks(self) -> list[TransformerBlock]:
        return list(self.blocks)  # type: ignore[arg-type]
