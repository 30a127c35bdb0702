"""DEQ-TrellisNet: a gated convolution of infinite depth, a causal language model (Bai, Kolter and Koltun 2019)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from poise.fixed_point.adjoints import Adjoint, Implicit
from poise.fixed_point.solution import Solution
from poise.fixed_point.solvers import Anderson, Solver
from poise.models.trellis import TrellisNetwork
from poise.nn.cells.trellis import TrellisCell
from poise.nn.equilibrium import Equilibrium
from poise.nn.segments import Segment
from poise.nn.trellis import TrellisPast


class DEQTrellisNet(TrellisNetwork):
    """Embedding, equilibrium of one weight-tied trellis layer, and a head tied to the embedding.

    `vocab_size`: tokens. `d_model`: width of the embedding. `d_hidden`: width of h and of c (default 2 d_model).
    `d_out`: the head reads so many features of h, the last ones (default d_model), through a linear layer where that is
    not d_model. `dropout`: of h, one mask a solve and sample for all positions. `weight_norm`: of the layer. The
    default solvers mix by prefix, so that no later token moves an earlier state at any tolerance. Its explicit peer
    with the same parameters is `TrellisNet`.

    Bai, Kolter and Koltun (2019), "Deep Equilibrium Models", section 4.1.

    >>> model = DEQTrellisNet(vocab_size=65, d_model=32)
    >>> model(torch.zeros(1, 10, dtype=torch.long)).shape
    torch.Size([1, 10, 65])
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        d_hidden: int | None = None,
        d_out: int | None = None,
        dropout: float = 0.0,
        weight_norm: bool = True,
        *,
        cutoffs: tuple[int, ...] = (),
        div_value: float = 4.0,
        solver: Solver = Anderson(scope="prefix", rtol=1e-3, max_steps=40),
        adjoint: Adjoint = Implicit(),
        eval_solver: Solver | None = None,
    ) -> None:
        super().__init__(vocab_size, d_model, d_hidden, d_out, cutoffs, div_value)
        cell = TrellisCell(d_model, self.d_hidden, dropout=dropout, weight_norm=weight_norm)
        self.equilibrium = Equilibrium(cell, solver, adjoint, eval_solver)

    def forward(self, tokens: Tensor, z0: Any = None) -> Tensor:
        """Return logits (batch, length, vocab_size) of the next token, for tokens (batch, length)."""
        return self.head(self.solve(tokens, z0).state[0])

    def solve(self, tokens: Tensor, z0: Any = None, past: TrellisPast | None = None) -> Solution:
        """Return the equilibrium of tokens (batch, length); its state is h and c, (batch, length, d_hidden) each.

        `past`: where a text goes on, what `read` or `decode` returned for the tokens before.
        """
        return self.equilibrium.solve(Segment(self.embedding(tokens), past), z0)

    def read(
        self, tokens: Tensor, past: TrellisPast | None, memory: int, lengths: Tensor | None = None
    ) -> tuple[Tensor, TrellisPast | None]:
        """Return h of a segment, and for the next one its last position: all that a trellis remembers.

        `memory`: 0 remembers nothing. `lengths` (batch,): of samples that are padded at the right.
        """
        solution = self.solve(tokens, past=past)
        past = self.cell.remember(solution.state, solution.context, lengths) if memory else None
        return solution.state[0], past

    @torch.no_grad()
    def decode(
        self, tokens: Tensor, past: TrellisPast | None = None, lengths: Tensor | None = None, window: int | None = None
    ) -> tuple[Tensor, TrellisPast]:
        """Return h of tokens after a past, and the past with them; only the new positions are solved for.

        `window` is for networks with attention, and changes nothing here.
        """
        h, last = self.read(tokens, past, 1, lengths)
        assert last is not None
        return h, last

    @property
    def cell(self) -> TrellisCell:
        """The cell."""
        return self.equilibrium.cell  # type: ignore[return-value]
