"""Mazes with one way between any two places, and the way from the start to the goal."""

from __future__ import annotations

import itertools
from collections import deque

import numpy as np
from numpy.typing import NDArray

from poise.data.errors import DataError
from poise.data.puzzles.instances import Grid, Instances, Split, gathered

OPEN, WALL, START, GOAL = range(4)
SYMBOLS = " #SG"
WAY = "*"
STEPS = np.array([(-2, 0), (2, 0), (0, -2), (0, 2)])  # from one room to the next, a wall between them


def generate(count: int, size: int, generator: np.random.Generator, split: Split = "train") -> Instances:
    """Return `count` mazes (n, size, size) carved depth first, their start and goal two different rooms at random.

    Rooms lie at odd coordinates. The answer is 1 on the way, its ends among it; its length is the difficulty. Raises
    DataError unless the size is odd and at least 5.
    """
    if count < 0 or size < 5 or size % 2 == 0:
        raise DataError(f"there are no {count} mazes of size {size}; pass an odd size of at least 5.")

    def draw(number: int) -> Instances:
        mazes = _carved(number, size, generator)
        rooms = (size - 1) // 2
        # Two different rooms: the second is the first moved on by a random number of places.
        start = generator.integers(0, rooms * rooms, number)
        goal = (start + generator.integers(1, rooms * rooms, number)) % (rooms * rooms)
        rows = np.arange(number)
        for kind, place in ((START, start), (GOAL, goal)):
            mazes[rows, 2 * (place // rooms) + 1, 2 * (place % rooms) + 1] = kind
        answer = way(mazes)
        return Instances(mazes, answer, answer.sum(axis=(1, 2), dtype=np.int64))

    return gathered(draw, count, split)


def _carved(count: int, size: int, generator: np.random.Generator) -> Grid:
    """Carve mazes side by side: each walks to a closed room next to it, or back where there is none."""
    rooms = (size - 1) // 2
    mazes = np.full((count, size, size), WALL, np.uint8)
    rows = np.arange(count)
    at = 2 * generator.integers(0, rooms, (count, 2)) + 1
    mazes[rows, at[:, 0], at[:, 1]] = OPEN
    trail = np.zeros((count, rooms * rooms, 2), np.int64)
    trail[:, 0] = at
    depth = np.zeros(count, np.int64)
    for _ in range(2 * rooms * rooms - 2):  # every room is entered once and left once
        at = trail[rows, depth]
        nearby = at[:, None] + STEPS
        inside = ((nearby > 0) & (nearby < size)).all(axis=2)
        clipped = nearby.clip(0, size - 1)
        closed = inside & (mazes[rows[:, None], clipped[..., 0], clipped[..., 1]] == WALL)
        choice = (generator.random(closed.shape) * closed).argmax(axis=1)
        goes = closed.any(axis=1)
        walls = at[goes] + STEPS[choice[goes]] // 2
        to = nearby[goes, choice[goes]]
        for place in (walls, to):
            mazes[rows[goes], place[:, 0], place[:, 1]] = OPEN
        depth = np.where(goes, depth + 1, np.maximum(depth - 1, 0))
        trail[rows[goes], depth[goes]] = to
    return mazes


def way(mazes: Grid) -> Grid:
    """Return the way of mazes that have only one: what is open once dead ends have been filled, again and again."""
    ends = mazes >= START
    left = mazes != WALL
    while True:
        padded = np.pad(left, ((0, 0), (1, 1), (1, 1))).astype(np.int8)
        near = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
        dead = left & ~ends & (near <= 1)
        if not dead.any():
            return left.astype(np.uint8)
        left &= ~dead


def distances(maze: Grid) -> NDArray[np.int64]:
    """Return how many steps every place of a maze (rows, columns) is from the start; -1 where it is not reached."""
    found = np.full(maze.shape, -1)
    start = tuple(map(int, np.argwhere(maze == START)[0]))
    found[start] = 0
    queue = deque([start])
    while queue:
        row, column = queue.popleft()
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= r < maze.shape[0] and 0 <= c < maze.shape[1]
            if inside and maze[r, c] != WALL and found[r, c] < 0:
                found[r, c] = found[row, column] + 1
                queue.append((r, c))
    return found


def is_solution(mazes: Grid, answer: Grid) -> NDArray[np.bool_]:
    """Return which answers (n, rows, columns) are a shortest way from the start to the goal, and nothing beside it."""
    return np.array([_is_way(maze, marked) for maze, marked in zip(mazes, answer, strict=True)], bool)


def _is_way(maze: Grid, marked: Grid) -> bool:
    steps = distances(maze)
    length = int(steps[maze == GOAL][0])
    on_way = steps[(marked != 0) & (maze != WALL)]
    # One place for each number of steps, up to the goal's: each lies beside the one before, or the way is broken.
    if length < 0 or (marked != 0).sum() != length + 1 or sorted(on_way.tolist()) != list(range(length + 1)):
        return False
    places = [np.argwhere((marked != 0) & (steps == step))[0] for step in range(length + 1)]
    if not marked[maze == GOAL][0]:
        return False
    return all(abs(a - b).sum() == 1 for a, b in itertools.pairwise(places))


def parse(text: str) -> Grid:
    """Return lines of `#`, space, `S` and `G` as a maze (rows, columns); what a line lacks at its end is open.

    Raises DataError, without saying where, for another character, or unless there is one start and one goal.
    """
    foreign = sorted(set(text) - {*SYMBOLS, "\n"})
    if foreign:
        raise DataError(f"{foreign[0]!r} is no part of a maze; write '#', space, 'S' and 'G'")
    for symbol, name in (("S", "start"), ("G", "goal")):
        if text.count(symbol) != 1:
            raise DataError(f"the maze has {text.count(symbol)} of {symbol!r}; write one {name}")
    lines = text.split("\n")
    width = max(map(len, lines))
    return np.array([[SYMBOLS.index(symbol) for symbol in line.ljust(width)] for line in lines], np.uint8)


def written(maze: Grid, marked: Grid) -> str:
    """Return a maze (rows, columns) with its way in stars, as lines."""
    shown = np.array(list(SYMBOLS))[maze]
    shown[(marked != 0) & (maze < START)] = WAY
    return "\n".join("".join(line) for line in shown.tolist())
