"""What networks on puzzles share: what they read of one, and the answer they read off a state."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poise.nn.cells.reasoning import GridCell, SudokuCell

Puzzle = Literal["sudoku", "prefix", "maze"]
ReasoningCell = GridCell | SudokuCell

# Width of the state, and of what is hidden in Sudoku's cell.
WIDTHS: dict[Puzzle, tuple[int, int]] = {"sudoku": (16, 32), "prefix": (32, 32), "maze": (32, 32)}


class PuzzleNetwork(nn.Module):
    """Reads a puzzle and answers at every position, whatever lies between.

    `puzzle`: "sudoku" is (batch, 81), 0 for a blank; "prefix" bits (batch, length); "maze" (batch, rows, columns) of
    0 open, 1 wall, 2 start, 3 goal. `width`, `hidden`: features of the state, and of Sudoku's cell within; None is
    16 and 32 for Sudoku, 32 for the others, whose cells hide as many as they show.
    """

    def __init__(self, puzzle: Puzzle, width: int | None, hidden: int | None) -> None:
        super().__init__()
        if puzzle not in get_args(Puzzle):
            raise ValueError(f"puzzle={puzzle!r} is unknown; pass one of {', '.join(get_args(Puzzle))}.")
        if hidden is not None and puzzle != "sudoku":
            raise ValueError(
                f"hidden={hidden}, but a cell for {puzzle} hides as many features as it shows; leave it out."
            )
        self.puzzle: Puzzle = puzzle
        usual = WIDTHS[puzzle]
        self.width, self.hidden = width or usual[0], hidden or usual[1]
        self.readout: nn.Module = nn.Linear(self.width, 1 if puzzle == "sudoku" else 2)

    def make_cell(self) -> ReasoningCell:
        """Return a fresh cell for the puzzle."""
        if self.puzzle == "sudoku":
            return SudokuCell(2, self.width, self.hidden)
        return GridCell(1, self.width, dims=1) if self.puzzle == "prefix" else GridCell(4, self.width, dims=2)

    def encode(self, given: Tensor) -> Tensor:
        """Return what cells read: of Sudoku (batch, 9, 81, 2), of the others (batch, channels, *positions)."""
        if self.puzzle == "sudoku":
            here = F.one_hot(given.long(), 10)[..., 1:].mT.float()
            return torch.stack(
                [here, (given > 0).float().unsqueeze(1) - here], dim=3
            )  # this digit is given; another one is
        if self.puzzle == "prefix":
            return given.unsqueeze(1).float() * 2 - 1
        return F.one_hot(given.long(), 4).movedim(-1, 1).float()

    def head(self, state: Tensor) -> Tensor:
        """Return logits (batch, choices, *positions): nine digits of each cell, or two choices of each position."""
        if self.puzzle == "sudoku":
            digits: Tensor = self.readout(state).squeeze(-1)
            return digits
        choices: Tensor = self.readout(state.movedim(1, -1)).movedim(-1, 1)
        return choices

    def read(self, state: Tensor) -> Tensor:
        """Return the answers (batch, *positions) of a state, uint8, as the puzzles write them."""
        return self.choose(self.head(state))

    def choose(self, logits: Tensor) -> Tensor:
        """Return the answers (batch, *positions) of logits, uint8: digits from 1, bits, or 1 on the way."""
        return (logits.argmax(dim=1) + int(self.puzzle == "sudoku")).to(torch.uint8)

    def loss(self, logits: Tensor, answer: Tensor) -> Tensor:
        """Return the mean cross-entropy of answers (batch, *positions), nats a position."""
        return F.cross_entropy(logits, answer.long() - int(self.puzzle == "sudoku"))
