"""A puzzle with an answer on its way, as lines for a terminal."""

from __future__ import annotations

from poise.data.puzzles import maze, prefix
from poise.data.puzzles.instances import Grid

BOLD, PLAIN = "\033[1m", "\033[0m"


def drawn(puzzle: str, given: Grid, answer: Grid, *, colour: bool = False) -> str:
    """Return the puzzle with its answer; `colour`: what is given stands out, where a terminal can show it."""
    if puzzle == "maze":
        return maze.written(given, answer)
    if puzzle == "prefix":
        return f"{prefix.written(given)}\n{prefix.written(answer)}"
    cells = [
        f"{BOLD}{clue}{PLAIN}" if clue and colour else str(clue or digit)
        for clue, digit in zip(given.tolist(), answer.tolist(), strict=True)
    ]
    rows = [cells[start : start + 9] for start in range(0, 81, 9)]
    lines = [" | ".join(" ".join(row[box : box + 3]) for box in (0, 3, 6)) for row in rows]
    for place in (6, 3):
        lines.insert(place, "------+-------+------")
    return "\n".join(lines)
