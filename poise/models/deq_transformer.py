"""DEQ-Transformer: a causal language model whose depth is one equilibrium (Bai, Kolter and Koltun 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poise.fixed_point.adjoints import Adjoint, Implicit
from poise.fixed_point.solution import Solution
from poise.fixed_point.solvers import Anderson, Solver
from poise.models.transformer import init_weights
from poise.nn.attention import Norm
from poise.nn.cells.transformer import TransformerCell
from poise.nn.equilibrium import Equilibrium
from poise.nn.normalization import normalize
from poise.nn.recall import Cache, Memory, Past
from poise.nn.segments import Segment
from poise.nn.vocabulary import build_vocabulary


class DEQTransformer(nn.Module):
    """Embedding, equilibrium of one weight-tied causal block, and a head tied to the embedding.

    `vocab_size`: tokens. `d_model`, `n_heads`, `d_ff` (default 4 d_model): widths. `n_layers`: layers inside the tied
    block. `dropout`: probability, masks drawn once a solve. `norm`, `span`: as in `TransformerCell`; the state is
    normalised before the head where norm is "pre". `weight_norm`: of the cell's linear layers. `cutoffs`, `div_value`:
    those of an `AdaptiveVocabulary` in place of one table, for tokens numbered from frequent to rare. The default
    solvers mix by prefix, so that no later token moves an earlier state at any tolerance.

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
        norm: Norm = "post",
        span: int | None = None,
        weight_norm: bool = False,
        cutoffs: tuple[int, ...] = (),
        div_value: float = 4.0,
        solver: Solver = Anderson(scope="prefix", rtol=1e-3, max_steps=40),
        adjoint: Adjoint = Implicit(),
        eval_solver: Solver | None = None,
    ) -> None:
        super().__init__()
        self.embedding = build_vocabulary(vocab_size, d_model, cutoffs, div_value)
        cell = TransformerCell(d_model, n_heads, n_layers, d_ff or 4 * d_model, dropout, norm=norm, span=span)
        self.equilibrium = Equilibrium(cell, solver, adjoint, eval_solver)
        self.norm_head = nn.LayerNorm(d_model) if norm == "pre" else nn.Identity()
        init_weights(self)
        if weight_norm:
            normalize(cell, "weight")

    def forward(self, tokens: Tensor, z0: Tensor | None = None) -> Tensor:
        """Return logits (batch, length, vocab_size) of the next token, for tokens (batch, length)."""
        return self.head(self.solve(tokens, z0).state)

    def solve(self, tokens: Tensor, z0: Tensor | None = None, past: Past | None = None) -> Solution:
        """Return the equilibrium of tokens (batch, length); its state is (batch, length, d_model).

        `past`: what `read` or `decode` returned for the tokens before.
        """
        x = self.embedding(tokens)
        return self.equilibrium.solve(x if past is None else Segment(x, past), z0)

    def read(self, tokens: Tensor, past: Memory | None, memory: int) -> tuple[Tensor, Memory | None]:
        """Return the equilibrium of a segment, and the memory of the last `memory` positions for the next one."""
        solution = self.solve(tokens, past=past)
        return solution.state, self.cell.remember(solution.state, solution.context, past, memory)

    @torch.no_grad()
    def decode(
        self, tokens: Tensor, past: Cache | None = None, lengths: Tensor | None = None, window: int | None = None
    ) -> tuple[Tensor, Cache]:
        """Return the equilibrium of tokens after those in a cache, and the cache with them.

        An equilibrium of earlier positions does not depend on later ones, so only the new positions are solved for.
        `lengths` (batch,): of prompts of different lengths, padded at the right. `window`: how many positions one sees,
        itself among them; None is all, and a past keeps its own.
        """
        before = Cache.empty(len(tokens), window, tokens.device) if past is None else past
        solution = self.solve(tokens, past=before)
        return solution.state, self.cell.cache(solution.state, solution.context, before, lengths)

    def head(self, state: Tensor) -> Tensor:
        """Return logits of a state, by the embedding's own weights."""
        return self.embedding.logits(self.norm_head(state))

    def losses(self, state: Tensor, targets: Tensor) -> Tensor:
        """Return -log p(target), nats a token, of a state (batch, length, d_model) and targets (batch, length)."""
        return self.embedding.losses(self.norm_head(state), targets)

    @property
    def cell(self) -> TransformerCell:
        """The cell."""
        return self.equilibrium.cell  # type: ignore[return-value]
