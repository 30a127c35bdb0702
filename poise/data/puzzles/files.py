"""Puzzles written as text: read with the line of each, so that an error says where."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from poise.data.errors import DataError
from poise.data.puzzles import maze, prefix, sudoku
from poise.data.puzzles.instances import Grid

COMMENT = "#"


def read_puzzles(text: str, puzzle: str) -> list[Grid]:
    """Return the puzzles in a text.

    Sudoku: 81 characters a line, or nine lines of nine. Prefix sums: a line of bits each. `#` starts a comment in both.
    Mazes: blocks of lines with an empty line between them. Raises DataError with the number of the line.
    """
    blocks = {"sudoku": _grids, "prefix": _lines, "maze": _mazes}[puzzle](text)
    parse: Callable[[str], Grid] = {"sudoku": sudoku.parse, "prefix": prefix.parse, "maze": maze.parse}[puzzle]
    found = []
    for number, block in blocks:
        try:
            found.append(parse(block))
        except DataError as error:
            raise DataError(f"line {number}: {error}.") from None
    if not found:
        raise DataError("the text holds no puzzle; write one a line.")
    return found


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that hold something besides a comment, with their numbers."""
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.split(COMMENT)[0].strip()
        if content:
            yield number, content


def _grids(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines of 81, and each nine lines of nine as one, with the number of the first."""
    rows: list[str] = []
    first = 0
    for number, line in _lines(text):
        if len(line) != 9:
            if rows:
                raise DataError(
                    f"line {number}: the puzzle that began at line {first} has only {len(rows)} lines of nine."
                )
            yield number, line
            continue
        first = first if rows else number
        rows.append(line)
        if len(rows) == 9:
            yield first, "\n".join(rows)
            rows = []
    if rows:
        raise DataError(f"line {first}: the puzzle that begins here has only {len(rows)} lines of nine; write nine.")


def _mazes(text: str) -> Iterator[tuple[int, str]]:
    """Yield blocks of lines with empty ones between them, with the number of the first."""
    block: list[str] = []
    first = 1
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if line:
            first = first if block else number
            block.append(line)
        elif block:
            yield first, "\n".join(block)
            block = []
