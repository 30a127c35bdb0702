"""Sudoku: grids, puzzles of a wanted number of clues that have one solution, and exact checks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from poise.data.errors import DataError
from poise.data.puzzles.instances import Grid, Instances, Split, in_split

CELLS, DIGITS = 81, 9
FULL = (1 << DIGITS) - 1  # a set of digits, one bit each

_row, _column = np.divmod(np.arange(CELLS), 9)
UNITS_OF = np.stack([_row, 9 + _column, 18 + 3 * (_row // 3) + _column // 3], axis=1)
"""(81, 3) the row, column and box of each cell, as units 0 to 26"""
MEMBERS = (UNITS_OF[:, :, None] == np.arange(27)).any(axis=1)
"""(81, 27) whether a cell belongs to a unit"""
PEERS = (MEMBERS.astype(np.int8) @ MEMBERS.T.astype(np.int8) > 0) & ~np.eye(CELLS, dtype=bool)
"""(81, 81) whether two cells share a unit"""


def is_solution(puzzles: Grid, answers: Grid) -> NDArray[np.bool_]:
    """Return which answers (n, 81) hold every digit once in each row, column and box, and keep the clues."""
    kept = ((puzzles == 0) | (puzzles == answers)).all(axis=1)
    held = one_hot(answers) @ MEMBERS.astype(np.float32)  # (n, 9, 27)
    found: NDArray[np.bool_] = kept & (held == 1).all(axis=(1, 2))
    return found


def conflicts(puzzle: Grid) -> list[tuple[int, int]]:
    """Return pairs of cells (81,) that share a unit and a clue."""
    clash = PEERS & (puzzle[:, None] == puzzle) & (puzzle[:, None] > 0)
    return [(int(a), int(b)) for a, b in np.argwhere(np.triu(clash))]


def solutions(puzzle: Grid, limit: int = 2) -> list[Grid]:
    """Return up to `limit` solutions of a puzzle (81,), by exact search: one is a puzzle as it should be."""
    if conflicts(puzzle):
        return []
    left = [FULL] * 27  # the digits that a unit still lacks
    cells = puzzle.tolist()
    units = UNITS_OF.tolist()
    for cell, digit in enumerate(cells):
        if digit:
            for unit in units[cell]:
                left[unit] &= ~(1 << (digit - 1))
    blanks = [cell for cell, digit in enumerate(cells) if not digit]
    found: list[Grid] = []

    def search() -> bool:
        """Fill the cell of fewest candidates; return True when enough has been found."""
        best, fewest = -1, DIGITS + 1
        for place, cell in enumerate(blanks):
            a, b, c = units[cell]
            count = (left[a] & left[b] & left[c]).bit_count()
            if count < fewest:
                best, fewest = place, count
                if count <= 1:
                    break
        if best < 0:
            found.append(np.array(cells, np.uint8))
            return len(found) >= limit
        if fewest == 0:
            return False
        cell = blanks[best]
        blanks[best] = blanks[-1]
        blanks.pop()
        a, b, c = units[cell]
        candidates = left[a] & left[b] & left[c]
        while candidates:
            bit = candidates & -candidates
            candidates ^= bit
            cells[cell] = bit.bit_length()
            left[a] ^= bit
            left[b] ^= bit
            left[c] ^= bit
            enough = search()
            left[a] ^= bit
            left[b] ^= bit
            left[c] ^= bit
            if enough:
                return True
        cells[cell] = 0
        blanks.append(cell)
        blanks[best], blanks[-1] = blanks[-1], blanks[best]
        return False

    search()
    return found


def forced(puzzles: Grid) -> tuple[Grid, NDArray[np.int64]]:
    """Fill what is forced in puzzles (n, 81), round by round; return the grids and how many rounds filled something.

    A round fills all cells with one candidate left (naked singles) and all digits with one place left in a unit (hidden
    singles). A puzzle that is filled whole has one solution, and its rounds are its difficulty.
    """
    grids = puzzles.copy()
    rounds = np.zeros(len(grids), np.int64)
    live = np.arange(len(grids))
    members, peers = MEMBERS.astype(np.float32), PEERS.astype(np.float32)
    while live.size:
        held = one_hot(grids[live])  # (live, 9, 81)
        candidates = ((held @ peers == 0) & (grids[live] == 0)[:, None]).astype(np.float32)
        naked = (candidates.sum(axis=1, keepdims=True) == 1) & (candidates > 0)
        lone = (candidates @ members == 1).astype(np.float32)  # (live, 9, 27)
        placed = naked | ((lone @ members.T > 0) & (candidates > 0))
        filled = placed.any(axis=1)
        digits = (placed.argmax(axis=1) + 1).astype(np.uint8)
        grids[live] = np.where(filled, digits, grids[live])
        moved = filled.any(axis=1)
        live = live[moved]
        rounds[live] += 1
        live = live[(grids[live] == 0).any(axis=1)]
    return grids, rounds


def guesses(puzzle: Grid) -> int:
    """Return how many digits a search tries in vain or not until it solves a puzzle (81,) with one solution.

    Between guesses it fills what singles force, and it guesses the cell of fewest candidates, small digits first: 0 is
    a puzzle that singles solve.
    """
    tried = 0

    def search(grid: Grid) -> bool:
        nonlocal tried
        filled = forced(grid[None])[0]
        if (filled > 0).all():
            return bool(is_solution(puzzle[None], filled)[0])
        free = (one_hot(filled)[0] @ PEERS.astype(np.float32) == 0) & (filled == 0)  # (9, 81)
        count = np.where(filled[0] == 0, free.sum(axis=0), DIGITS + 1)
        cell = int(count.argmin())
        if count[cell] == 0 or conflicts(filled[0]):
            return False
        for digit in np.flatnonzero(free[:, cell]) + 1:
            tried += 1
            trial = filled[0].copy()
            trial[cell] = digit
            if search(trial):
                return True
        return False

    search(puzzle)
    return tried


def random_grids(count: int, generator: np.random.Generator) -> Grid:
    """Return `count` full grids (n, 81), each by search from three boxes filled at random."""
    grids = np.zeros((count, CELLS), np.uint8)
    diagonal = [[cell for cell in range(CELLS) if UNITS_OF[cell, 2] == box] for box in (18, 22, 26)]
    for grid in grids:
        for cells in diagonal:  # boxes that share no row or column, so that any filling of them can be completed
            grid[cells] = generator.permutation(DIGITS) + 1
        # The search prefers small digits; renamed at random it prefers none.
        names = np.concatenate([[0], generator.permutation(DIGITS) + 1]).astype(np.uint8)
        grid[:] = names[solutions(grid, 1)[0]]
    return grids


def minimal(grids: Grid, generator: np.random.Generator) -> Grid:
    """Take clues out of full grids (n, 81) in random order, each where what remains still forces the whole grid."""
    puzzles = grids.copy()
    order = generator.permuted(np.tile(np.arange(CELLS), (len(grids), 1)), axis=1)
    rows = np.arange(len(grids))
    for step in range(CELLS):
        trial = puzzles.copy()
        trial[rows, order[:, step]] = 0
        kept = (forced(trial)[0] == grids).all(axis=1)
        puzzles[kept] = trial[kept]
    return puzzles


def with_clues(puzzles: Grid, grids: Grid, clues: NDArray[np.int64] | int, generator: np.random.Generator) -> Grid:
    """Put digits of the solutions back into puzzles (n, 81) at random until each has `clues` of them, or more."""
    missing = np.maximum(clues - (puzzles > 0).sum(axis=1), 0)
    keys = np.where(puzzles > 0, 2.0, generator.random(puzzles.shape))
    rank = keys.argsort(axis=1).argsort(axis=1)
    return np.where(rank < missing[:, None], grids, puzzles)


def generate(count: int, generator: np.random.Generator, split: Split = "train", clues: int | None = None) -> Instances:
    """Return `count` puzzles (n, 81), 0 for a blank, whose singles force every cell; their rounds are the difficulty.

    `clues`: how many each has, where the minimal puzzle has no more; None is the minimal puzzle, of 24.6 on the mean.
    Splits share no solution.
    """
    if count < 0 or not (clues is None or 17 <= clues <= CELLS):
        raise DataError(f"there are no {count} puzzles of {clues} clues; pass 17 to 81 clues.")
    grids = np.zeros((0, CELLS), np.uint8)
    while len(grids) < count:
        drawn = random_grids(2 * (count - len(grids)) + 8, generator)
        grids = np.concatenate([grids, drawn[in_split(drawn, split)]])[:count]
    puzzles = minimal(grids, generator)
    if clues is not None:
        puzzles = with_clues(puzzles, grids, clues, generator)
    return Instances(puzzles, grids, forced(puzzles)[1])


def generate_hard(count: int, generator: np.random.Generator, split: Split = "train") -> Instances:
    """Return `count` minimal puzzles with one solution, by exact search, that singles do not solve.

    No clue can be left out, and trial and error or cleverer rules are needed; the rounds of singles until nothing more
    is forced are kept as the difficulty. About a tenth of a second each.
    """
    if count < 0:
        raise DataError(f"there are no {count} puzzles; pass at least 0.")
    given: list[Grid] = []
    answers: list[Grid] = []
    while len(given) < count:
        grids = random_grids(8, generator)
        for grid in grids[in_split(grids, split)]:
            puzzle = grid.copy()
            for cell in generator.permutation(CELLS):
                digit, puzzle[cell] = puzzle[cell], 0
                if len(solutions(puzzle)) > 1:
                    puzzle[cell] = digit
            if (forced(puzzle[None])[0] == 0).any():
                given.append(puzzle)
                answers.append(grid)
    puzzles = np.array(given[:count], np.uint8).reshape(count, CELLS)
    return Instances(puzzles, np.array(answers[:count], np.uint8).reshape(count, CELLS), forced(puzzles)[1])


def one_hot(grids: Grid) -> NDArray[np.float32]:
    """Return (n, 9, 81) with 1 where a cell holds a digit."""
    return (grids[:, None] == np.arange(1, 10)[:, None]).astype(np.float32)


def parse(text: str) -> Grid:
    """Return a grid (81,) of 81 characters, digits with `.` or `0` for a blank; lines of nine may be joined.

    Raises DataError, without saying where, for a wrong length, another character, or clues that contradict each other.
    """
    symbols = text.replace("\n", "")
    foreign = sorted(set(symbols) - set(".0123456789"))
    if foreign:
        raise DataError(f"{foreign[0]!r} is no digit; write 1 to 9, and . or 0 for a blank")
    if len(symbols) != CELLS:
        raise DataError(f"the puzzle has {len(symbols)} cells; write 81 in one line, or nine lines of nine")
    puzzle = np.array([0 if symbol == "." else int(symbol) for symbol in symbols], np.uint8)
    clash = conflicts(puzzle)
    if clash:
        (a, b), digit = clash[0], puzzle[clash[0][0]]
        raise DataError(
            f"two clues are {digit} in one unit, at row {a // 9 + 1} column {a % 9 + 1} and row {b // 9 + 1} column "
            f"{b % 9 + 1}; correct one of them"
        )
    return puzzle


def written(answer: Grid) -> str:
    """Return a grid (81,) as a line, `.` for a blank."""
    return "".join(str(digit) if digit else "." for digit in answer.tolist())
