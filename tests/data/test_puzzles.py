"""Puzzles: one solution each, disjoint splits, exact rules, and files that are read with the line of an error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poise.data import DataError
from poise.data.puzzles import in_split, maze, prefix, sudoku
from poise.data.puzzles.files import read_puzzles

# A puzzle of 17 clues, the fewest there can be, and its solution (Royle's collection).
HARD = "000000010400000000020000000000050407008000300001090000300400200050100000000806000"
HARD_SOLVED = "693784512487512936125963874932651487568247391741398625319475268856129743274836159"


def rng(seed=0):
    return np.random.default_rng(seed)


def grid(text):
    return sudoku.parse(text)


def brute_force_units():
    """The 27 units as lists of cells, by the definition alone."""
    rows = [[9 * r + c for c in range(9)] for r in range(9)]
    columns = [[9 * r + c for r in range(9)] for c in range(9)]
    boxes = [[9 * (3 * a + i) + 3 * b + j for i in range(3) for j in range(3)] for a in range(3) for b in range(3)]
    return rows + columns + boxes


def keeps_the_rules(answer):
    return all(sorted(int(answer[cell]) for cell in unit) == list(range(1, 10)) for unit in brute_force_units())


# Sudoku


@pytest.fixture(scope="module")
def minimal():
    return sudoku.generate(20, rng())


def test_generated_puzzles_have_one_solution_and_lose_it_with_any_clue(minimal):
    for puzzle, answer in zip(minimal.given[:6], minimal.answer[:6], strict=True):
        assert [s.tolist() for s in sudoku.solutions(puzzle)] == [answer.tolist()] and keeps_the_rules(answer)
        for clue in np.flatnonzero(puzzle)[::3]:
            fewer = puzzle.copy()
            fewer[clue] = 0
            # Without it singles no longer force the grid, whether or not another search would.
            assert not (sudoku.forced(fewer[None])[0] == answer).all()


def test_hard_puzzles_have_one_solution_that_singles_do_not_find():
    drawn = sudoku.generate_hard(3, rng(), "test")
    for puzzle, answer in zip(drawn.given, drawn.answer, strict=True):
        assert [s.tolist() for s in sudoku.solutions(puzzle)] == [answer.tolist()]
        assert (sudoku.forced(puzzle[None])[0] == 0).any()
        for clue in np.flatnonzero(puzzle)[::4]:
            fewer = puzzle.copy()
            fewer[clue] = 0
            assert len(sudoku.solutions(fewer)) == 2
    assert in_split(drawn.answer, "test").all() and len(sudoku.generate_hard(0, rng())) == 0


def test_guesses_are_none_where_singles_suffice_and_at_least_one_elsewhere(minimal):
    hard = sudoku.generate_hard(6, np.random.default_rng(3))
    assert [sudoku.guesses(puzzle) for puzzle in minimal.given] == [0] * len(minimal)
    assert all(sudoku.guesses(puzzle) > 0 for puzzle in hard.given)
    for grid in hard.answer:  # without 8 and 9 every loop of them may be swapped, so no guess is in vain
        loops = np.where(grid < 8, grid, 0)
        assert 2 ** sudoku.guesses(loops) == len(sudoku.solutions(loops, 1000))


def test_more_clues_are_digits_of_the_solution(minimal):
    given = sudoku.with_clues(minimal.given, minimal.answer, 34, rng(1))
    assert ((given > 0).sum(axis=1) == 34).all()
    assert ((given == 0) | (given == minimal.answer)).all() and ((minimal.given == 0) | (given > 0)).all()
    many = sudoku.with_clues(minimal.given, minimal.answer, np.arange(20, 40), rng(2))
    assert ((many > 0).sum(axis=1) == np.maximum(np.arange(20, 40), (minimal.given > 0).sum(axis=1))).all()
    generated = sudoku.generate(4, rng(3), clues=30)
    assert ((generated.given > 0).sum(axis=1) == 30).all()


def test_rounds_are_those_of_singles_by_hand():
    full = grid(HARD_SOLVED)
    for blanks, rounds in (([], 0), ([0], 1), ([0, 40, 80], 1), (list(range(9)), 1)):
        puzzle = full.copy()
        puzzle[blanks] = 0
        filled, counted = sudoku.forced(puzzle[None])
        assert (filled[0] == full).all() and counted[0] == rounds
    # Nothing is forced in an empty grid.
    filled, counted = sudoku.forced(np.zeros((1, 81), np.uint8))
    assert not filled.any() and counted[0] == 0


def test_the_exact_solver_on_a_known_puzzle():
    assert [sudoku.written(s) for s in sudoku.solutions(grid(HARD))] == [HARD_SOLVED]
    assert len(sudoku.solutions(np.zeros(81, np.uint8), limit=5)) == 5
    impossible = grid(HARD)
    impossible[0] = 9  # against a solution whose digit there is 6
    assert sudoku.solutions(impossible) == []
    clashing = grid(HARD)
    clashing[0], clashing[1] = 7, 7
    assert sudoku.solutions(clashing) == []


@given(cell=st.integers(0, 80), digit=st.integers(0, 9))
@settings(deadline=None)
def test_a_single_wrong_cell_is_refused(cell, digit):
    puzzle, answer = grid(HARD), grid(HARD_SOLVED)
    changed = answer.copy()
    changed[cell] = digit
    assert bool(sudoku.is_solution(puzzle[None], changed[None])[0]) == (digit == answer[cell])
    assert keeps_the_rules(changed) == (digit == answer[cell])


def test_an_answer_must_keep_the_clues():
    swapped = np.array([0, 2, 1, *range(3, 10)], np.uint8)[grid(HARD_SOLVED)]  # a grid, but another one
    assert keeps_the_rules(swapped) and not sudoku.is_solution(grid(HARD)[None], swapped[None])[0]


# Mazes


@pytest.mark.parametrize("size", [5, 9, 15])
def test_mazes_are_trees_and_the_way_is_that_of_breadth_first_search(size):
    drawn = maze.generate(20, size, rng())
    for given_, answer, length in zip(drawn.given, drawn.answer, drawn.difficulty, strict=True):
        open_ = given_ != maze.WALL
        edges = (open_[1:] & open_[:-1]).sum() + (open_[:, 1:] & open_[:, :-1]).sum()
        steps = maze.distances(given_)
        assert (steps[open_] >= 0).all() and edges == open_.sum() - 1  # connected, without a circle
        assert (given_ == maze.START).sum() == (given_ == maze.GOAL).sum() == 1
        assert length == steps[given_ == maze.GOAL][0] + 1 == answer.sum()
        from_goal = maze.distances(np.where(given_ > 1, 5 - given_, given_).astype(np.uint8))
        on_shortest = open_ & (steps + from_goal == length - 1)
        assert (answer.astype(bool) == on_shortest).all()
    assert maze.is_solution(drawn.given, drawn.answer).all()


@given(seed=st.integers(0, 50), row=st.integers(0, 8), column=st.integers(0, 8))
@settings(deadline=None)
def test_a_single_wrong_place_is_refused(seed, row, column):
    drawn = maze.generate(1, 9, rng(seed))
    changed = drawn.answer.copy()
    changed[0, row, column] ^= 1
    assert not maze.is_solution(drawn.given, changed)[0]


def test_ways_round_a_circle_must_be_shortest():
    ring = maze.parse("S  G\n ## \n    ")
    short, long = np.zeros((2, 3, 4), np.uint8)
    short[0] = 1
    long[:, 0] = long[2] = long[:, 3] = 1
    both = short | long
    assert maze.is_solution(ring[None].repeat(3, 0), np.stack([short, long, both])).tolist() == [True, False, False]
    walled = maze.parse("S#G")
    assert not maze.is_solution(walled[None], np.array([[[1, 0, 1]]], np.uint8))[0]
    assert not maze.is_solution(walled[None], np.ones((1, 1, 3), np.uint8))[0]


def test_a_maze_is_written_with_its_way():
    text = "#####\n#S G#\n#####"
    assert (
        maze.written(maze.parse(text), np.array([[0] * 5, [0, 1, 1, 1, 0], [0] * 5], np.uint8)) == "#####\n#S*G#\n#####"
    )


# Prefix sums


@given(st.lists(st.integers(0, 1), min_size=1, max_size=40))
def test_prefix_sums(bits):
    bits = np.array([bits], np.uint8)
    wanted = [int(bits[0, : place + 1].sum()) % 2 for place in range(bits.shape[1])]
    assert prefix.solution(bits)[0].tolist() == wanted
    assert prefix.is_solution(bits, np.array([wanted], np.uint8))[0]
    wrong = np.array([wanted], np.uint8)
    wrong[0, -1] ^= 1
    assert not prefix.is_solution(bits, wrong)[0]


# Splits


@pytest.mark.parametrize(
    "draw",
    [
        lambda seed, split: prefix.generate(300, 8, rng(seed), split).given,
        lambda seed, split: maze.generate(300, 5, rng(seed), split).given,
        lambda seed, split: sudoku.generate(30, rng(seed), split).answer,
    ],
)
def test_splits_share_nothing_whatever_their_seeds(draw):
    seen = {split: {one.tobytes() for seed in (0, 1) for one in draw(seed, split)} for split in ("train", "test")}
    assert seen["train"] and seen["test"] and not seen["train"] & seen["test"]
    assert np.array_equal(draw(3, "test"), draw(3, "test"))


def test_a_split_is_an_eighth_of_what_there_is():
    keys = rng().integers(0, 2, (4000, 32), dtype=np.uint8)
    tested = in_split(keys, "test")
    assert 0.1 < tested.mean() < 0.15 and (tested ^ in_split(keys, "train")).all()


@pytest.mark.parametrize(
    "generate",
    [
        lambda: prefix.generate(3, 0, rng()),
        lambda: maze.generate(3, 8, rng()),
        lambda: maze.generate(3, 3, rng()),
        lambda: sudoku.generate(1, rng(), clues=16),
    ],
)
def test_sizes_that_mean_nothing_are_refused(generate):
    with pytest.raises(DataError, match="pass"):
        generate()


# Files


def test_sudoku_in_both_shapes_with_comments():
    nine = "\n".join(HARD[start : start + 9] for start in range(0, 81, 9))
    text = f"# two of them\n{HARD.replace('0', '.')}  # one\n\n{nine}\n"
    assert [sudoku.written(one).replace(".", "0") for one in read_puzzles(text, "sudoku")] == [HARD, HARD]


def test_bits_and_mazes():
    assert [one.tolist() for one in read_puzzles("101\n# no\n01", "prefix")] == [[1, 0, 1], [0, 1]]
    first, second = read_puzzles("####\n#SG#\n####\n\n\nS G\n", "maze")
    assert first.shape == (3, 4) and second.tolist() == [[2, 0, 3]]


@pytest.mark.parametrize(
    ("puzzle", "text", "message"),
    [
        ("sudoku", f"# x\n{HARD}\n{HARD[:80]}", "line 3: the puzzle has 80 cells"),
        ("sudoku", HARD[:80] + "x", "line 1: 'x' is no digit"),
        ("sudoku", "11" + HARD[2:], "line 1: two clues are 1 in one unit, at row 1 column 1 and row 1 column 2"),
        ("sudoku", "\n" + "123456789\n" * 4, "line 2: the puzzle that begins here has only 4 lines of nine"),
        ("sudoku", "123456789\n" * 4 + HARD, "line 5: the puzzle that began at line 1 has only 4 lines of nine"),
        ("prefix", "0101\n012", "line 2: '2' is no bit"),
        ("maze", "###\n#S#\n###", "line 1: the maze has 0 of 'G'; write one goal"),
        ("maze", "SG\n\nS S", "line 3: the maze has 2 of 'S'; write one start"),
        ("maze", "SxG", "line 1: 'x' is no part of a maze"),
        ("sudoku", "# nothing\n", "the text holds no puzzle"),
    ],
)
def test_what_is_no_puzzle_is_refused_with_its_line(puzzle, text, message):
    with pytest.raises(DataError, match=message):
        read_puzzles(text, puzzle)
