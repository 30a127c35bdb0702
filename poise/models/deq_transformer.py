"""DEQ-Transformer: a causal language model whose depth is one equilibrium (Bai, Kolter and Koltun 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from poise.fixed_point.adjoints import Adjoint, Implicit
from poise.fixed_point.solution import Solution
from poise.fixed_point.solvers import Anderson, Solver
from poise.models.transformer import init_weights
from poise.nn.attention import Norm
from poise.nn.cells.transformer import TransformerCell
from poise.nn.convolution import ShortConvolution
from poise.nn.equilibrium import Equilibrium
from poise.nn.layers import CausalLayers
from poise.nn.normalization import normalize
from poise.nn.recall import Cache, Memory, Past, cached, remembered
from poise.nn.segments import Segment
from poise.nn.vocabulary import build_vocabulary


class DEQTransformer(nn.Module):
    """Embedding, equilibrium of one weight-tied causal block, and a head tied to the embedding.

    `vocab_size`: tokens. `d_model`, `n_heads`, `d_ff` (default 4 d_model): widths. `n_layers`: layers inside the tied
    block. `n_before`, `n_after`: plain layers around the equilibrium, evaluated once: what they can do is no part of
    every evaluation, and the block converges in fewer (Geiping et al. 2025 call them prelude and coda; the stem and
    heads of a multiscale DEQ are such, Bai et al. 2020). `convolution`: width of a `ShortConvolution` of the embedded
    tokens; 1 is none. `dropout`: probability, masks drawn once a solve. `norm`,
    `span`, `variational`: as in `CausalLayers`; the state is normalised before the head where norm is "pre".
    `weight_norm`: of the linear layers. `cutoffs`, `div_value`: those of an `AdaptiveVocabulary` in place of one table,
    for tokens numbered from frequent to rare. The default solvers mix by prefix, so that no later token moves an
    earlier state at any tolerance.

    >>> model = DEQTransformer(vocab_size=65, d_model=32, n_heads=4)
    >>> model(torch.zeros(1, 10, dtype=torch.long)).shape
    torch.Size([1, 10, 65])
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        n_heads: int,
        n_layers: int = 2,
        d_ff: int | None = None,
        dropout: float = 0.0,
        *,
        n_before: int = 0,
        n_after: int = 0,
        convolution: int = 1,
        norm: Norm = "post",
        span: int | None = None,
        variational: bool = False,
        weight_norm: bool = False,
        cutoffs: tuple[int, ...] = (),
        div_value: float = 4.0,
        solver: Solver = Anderson(scope="prefix", rtol=1e-3, max_steps=40),
        adjoint: Adjoint = Implicit(),
        eval_solver: Solver | None = None,
    ) -> None:
        super().__init__()
        for option, number in (("n_before", n_before), ("n_after", n_after)):
            if number < 0:
                raise ValueError(f"{option}={number} is no number of layers; pass 0 or more.")
        self.embedding = build_vocabulary(vocab_size, d_model, cutoffs, div_value)
        self.convolution = ShortConvolution(d_model, convolution)
        self.norm_input = nn.LayerNorm(d_model) if n_before else nn.Identity()
        width = d_ff or 4 * d_model
        alike: dict[str, Any] = {"dropout": dropout, "norm": norm, "span": span, "variational": variational}
        self.before = CausalLayers(d_model, n_heads, n_before, width, **alike)
        cell = TransformerCell(d_model, n_heads, n_layers, width, **alike)
        self.equilibrium = Equilibrium(cell, solver, adjoint, eval_solver)
        self.after = CausalLayers(d_model, n_heads, n_after, width, **alike)
        self.norm_head = nn.LayerNorm(d_model) if norm == "pre" else nn.Identity()
        init_weights(self)
        if weight_norm:
            for part in (self.before, cell, self.after):
                if any(True for _ in part.parameters()):
                    normalize(part, "weight")

    def forward(self, tokens: Tensor, z0: Tensor | None = None) -> Tensor:
        """Return logits (batch, length, vocab_size) of the next token, for tokens (batch, length)."""
        return self.head(self._run(tokens, z0, None).outputs[-1])

    def solve(self, tokens: Tensor, z0: Tensor | None = None, past: Past | None = None) -> Solution:
        """Return the equilibrium of tokens (batch, length); its state is (batch, length, d_model).

        `past`: what `read` or `decode` returned for the tokens before.
        """
        return self._run(tokens, z0, past, after=False).solution

    def read(self, tokens: Tensor, past: Memory | None, memory: int) -> tuple[Tensor, Memory | None]:
        """Return the features of a segment, and the memory of the last `memory` positions for the next one.

        Features are what the head reads: the equilibrium, or what the layers after it make of it.
        """
        run = self._run(tokens, None, past)
        return run.outputs[-1], remembered(past, self._inputs(run), memory, run.embedded) if memory else None

    @torch.no_grad()
    def decode(
        self, tokens: Tensor, past: Cache | None = None, lengths: Tensor | None = None, window: int | None = None
    ) -> tuple[Tensor, Cache]:
        """Return the features of tokens after those in a cache, and the cache with them.

        An equilibrium of earlier positions does not depend on later ones, so only the new positions are solved for.
        `lengths` (batch,): of prompts of different lengths, padded at the right. `window`: how many positions one sees,
        itself among them; None is all, and a past keeps its own.
        """
        before = Cache.empty(len(tokens), window, tokens.device) if past is None else past
        run = self._run(tokens, None, before, lengths)
        blocks = [*self.before.stack, *self.cell.blocks, *self.after.stack]
        past = cached(before, self._inputs(run), blocks, self.cell.layers.rotary, lengths, run.embedded)
        return run.outputs[-1], past

    def _run(
        self,
        tokens: Tensor,
        z0: Tensor | None,
        past: Past | None,
        lengths: Tensor | None = None,
        *,
        after: bool = True,
    ) -> _Run:
        """Pass through the network; `after`: also through what comes after the equilibrium."""
        first, last = len(self.before.stack), len(self.before.stack) + len(self.cell.blocks)
        x, embedded = self.convolution(self.embedding(tokens), past and past.embedded, lengths)
        *inputs, x = self.before(self.norm_input(x), past and past.of(0, first))
        solution = self.equilibrium.solve(x if past is None else Segment(x, past.of(first, last)), z0)
        end = last + len(self.after.stack)
        outputs = self.after(solution.state, past and past.of(last, end)) if after else []
        return _Run(inputs, solution, outputs, embedded)

    def _inputs(self, run: _Run) -> list[Tensor]:
        """Return what every layer read."""
        solution = run.solution
        return [*run.inputs, *self.cell.inputs(solution.state, solution.context), *run.outputs[:-1]]

    def head(self, features: Tensor) -> Tensor:
        """Return logits of features, by the embedding's own weights."""
        return self.embedding.logits(self.norm_head(features))

    def losses(self, features: Tensor, targets: Tensor) -> Tensor:
        """Return -log p(target), nats a token, of features (batch, length, d_model) and targets (batch, length)."""
        return self.embedding.losses(self.norm_head(features), targets)

    @property
    def cell(self) -> TransformerCell:
        """The cell."""
        return self.equilibrium.cell  # type: ignore[return-value]


@dataclass(frozen=True)
class _Run:
    """One pass through the network: what the layers before the equilibrium read, the equilibrium, and after it."""

    inputs: list[Tensor]
    solution: Solution
    outputs: list[Tensor]  # the state, and the output of each layer after it
    embedded: Tensor | None  # what the convolution needs of the segment
