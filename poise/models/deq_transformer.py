"""DEQ-Transformer: a causal language model whose depth is one equilibrium (Bai, Kolter and Koltun 2019)."""

from __future__ import annotations

from torch import Tensor, nn

from poise.fixed_point.adjoints import Adjoint, Implicit
from poise.fixed_point.solution import Solution
from poise.fixed_point.solvers import Anderson, Solver
from poise.models.transformer import init_weights
from poise.nn.cells.transformer import TransformerCell
from poise.nn.equilibrium import Equilibrium
from poise.nn.vocabulary import build_vocabulary


class DEQTransformer(nn.Module):
    """Embedding, equilibrium of one weight-tied causal block, and a head tied to the embedding.

    `vocab_size`: tokens. `d_model`, `n_heads`, `d_ff` (default 4 d_model): widths. `n_layers`: layers inside the tied
    block. `dropout`: probability, masks drawn once a solve. `cutoffs`, `div_value`: those of an `AdaptiveVocabulary` in
    place of one table, for tokens numbered from frequent to rare. The default solvers mix by prefix, so that no later
    token moves an earlier state at any tolerance.

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
        cutoffs: tuple[int, ...] = (),
        div_value: float = 4.0,
        solver: Solver = Anderson(scope="prefix", rtol=1e-3, max_steps=40),
        adjoint: Adjoint = Implicit(),
        eval_solver: Solver | None = None,
    ) -> None:
        super().__init__()
        self.embedding = build_vocabulary(vocab_size, d_model, cutoffs, div_value)
        cell = TransformerCell(d_model, n_heads, n_layers, d_ff or 4 * d_model, dropout)
        self.equilibrium = Equilibrium(cell, solver, adjoint, eval_solver)
        init_weights(self)

    def forward(self, tokens: Tensor, z0: Tensor | None = None) -> Tensor:
        """Return logits (batch, length, vocab_size) of the next token, for tokens (batch, length)."""
        return self.head(self.solve(tokens, z0).state)

    def solve(self, tokens: Tensor, z0: Tensor | None = None) -> Solution:
        """Return the equilibrium of tokens (batch, length); its state is (batch, length, d_model)."""
        return self.equilibrium.solve(self.embedding(tokens), z0)

    def head(self, state: Tensor) -> Tensor:
        """Return logits of a state, by the embedding's own weights."""
        return self.embedding.logits(state)

    def losses(self, state: Tensor, targets: Tensor) -> Tensor:
        """Return -log p(target), nats a token, of a state (batch, length, d_model) and targets (batch, length)."""
        return self.embedding.losses(state, targets)
