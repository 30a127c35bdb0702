"""Cells that learn an algorithm: small maps at every position of a puzzle, the same at any size of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-6  # added to mean squares


def unit_rms(x: Tensor, dim: int) -> Tensor:
    """Return x over the root mean square of its features in `dim`, at each position by itself."""
    return x * x.square().mean(dim=dim, keepdim=True).add(EPSILON).rsqrt()


class GridCell(nn.Module):
    """z -> RMS(W2 relu(W1 z + U x)), W1, W2 and U being convolutions of width 3 along one or two dimensions.

    `in_channels`: of x (batch, in_channels, *positions). `channels`: of the state (batch, channels, *positions).
    `dims`: 1 for strings, 2 for grids. RMS divides the features of each position by their root mean square: no
    statistic is taken over positions, so what is learnt on small instances means the same on large ones. Information
    moves two positions an evaluation.
    """

    def __init__(self, in_channels: int, channels: int, dims: int) -> None:
        super().__init__()
        if dims not in (1, 2):
            raise ValueError(f"GridCell(dims={dims}) has no convolution; pass 1 or 2.")
        convolution: Callable[..., nn.Module] = nn.Conv1d if dims == 1 else nn.Conv2d
        self.position_dim = tuple(range(2, 2 + dims))
        self.feature_dim = 1
        self.channels = channels
        self.injection = convolution(in_channels, channels, 3, padding=1)
        self.first = convolution(channels, channels, 3, padding=1, bias=False)
        self.second = convolution(channels, channels, 3, padding=1, bias=False)

    def inject(self, x: Tensor) -> Tensor:
        """Return U x, (batch, channels, *positions)."""
        context: Tensor = self.injection(x)
        return context

    def initial_state(self, context: Tensor) -> Tensor:
        """Return zeros (batch, channels, *positions)."""
        return torch.zeros_like(context)

    def forward(self, z: Tensor, context: Tensor) -> Tensor:
        """Evaluate the cell once; z and context are (batch, channels, *positions)."""
        return unit_rms(self.update(z, context), 1)

    def update(self, z: Tensor, context: Tensor) -> Tensor:
        """Return W2 relu(W1 z + U x), not normalised."""
        update: Tensor = self.second(F.relu(self.first(z) + context))
        return update


class SudokuCell(nn.Module):
    """z -> RMS(M2 relu(M1 z + U x)), each M a matrix of its own for a place, its row and column, its box, its digits.

    The state is (batch, 9 digits, 81 cells, width): a vector for every digit in every cell. M adds to what it makes of
    a vector what it makes of the sums over the row and column, the box, and the digits of the cell: M1 sees what is
    ruled out, M2 what is left over. Digits, lines and cells of a box are treated alike, so the map commutes with every
    symmetry of Sudoku: digits renamed, bands and lines within them moved, the grid transposed. `x` is
    (batch, 9, 81, in_features). RMS as in `GridCell`.
    """

    position_dim = (1, 2)
    feature_dim = 3

    def __init__(self, in_features: int, width: int, hidden: int) -> None:
        super().__init__()
        self.width = width
        self.injection = nn.Linear(in_features, hidden)
        self.first = SudokuSums(width, hidden)
        self.second = SudokuSums(hidden, width)

    def inject(self, x: Tensor) -> Tensor:
        """Return U x, (batch, 9, 81, hidden)."""
        context: Tensor = self.injection(x)
        return context

    def initial_state(self, context: Tensor) -> Tensor:
        """Return zeros (batch, 9, 81, width)."""
        return context.new_zeros(*context.shape[:3], self.width)

    def forward(self, z: Tensor, context: Tensor) -> Tensor:
        """Evaluate the cell once; z (batch, 9, 81, width), context (batch, 9, 81, hidden)."""
        return F.rms_norm(self.update(z, context), (self.width,), eps=EPSILON)

    def update(self, z: Tensor, context: Tensor) -> Tensor:
        """Return M2 relu(M1 z + U x), not normalised."""
        update: Tensor = self.second(F.relu(self.first(z) + context))
        return update


class SudokuSums(nn.Module):
    """A linear map of vectors (batch, 9, 81, in_features), that of each place and of the sums that it is part of."""

    members: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.own, self.line, self.box, self.digits = (
            nn.Linear(in_features, out_features, bias=False) for _ in range(4)
        )
        row, column = torch.arange(81) // 9, torch.arange(81) % 9
        units = torch.stack([row, 9 + column, 18 + 3 * (row // 3) + column // 3])
        # (27, 81): nine rows, nine columns, nine boxes, and which cells are in each.
        members = (units.unsqueeze(1) == torch.arange(27).view(1, 27, 1)).any(dim=0).float()
        self.register_buffer("members", members, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, 9, 81, out_features)."""
        batch = len(x)
        # Products with the matrix of members are several times faster than sums along the dimensions of a grid, and the
        # matrices that learn read the sums, which are few.
        flat, members = x.flatten(0, 1), self.members.to(x.dtype).expand(9 * batch, -1, -1)
        sums = torch.bmm(members, flat) / 3  # (9 batch, 27, in_features); of the variance of one of the nine in each
        units = torch.cat([self.line(sums[:, :18]), self.box(sums[:, 18:])], dim=1)
        own = self.own(x) + self.digits(x.sum(1, keepdim=True) / 3)
        return torch.baddbmm(own.flatten(0, 1), members.mT, units).unflatten(0, (batch, 9))
