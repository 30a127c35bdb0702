"""Reasoners: the same map at any size, each puzzle by itself, and the symmetries of what they solve."""

import numpy as np
import pytest
import torch

from poise import Picard
from poise.models import FeedForwardReasoner, Reasoner
from poise.nn.cells import GridCell, SudokuCell

SHAPES = {"sudoku": (81,), "prefix": (12,), "maze": (7, 9)}
CHOICES = {"sudoku": 9, "prefix": 2, "maze": 2}
PUZZLES = pytest.mark.parametrize("puzzle", SHAPES)


def puzzles(kind, batch=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    high = {"sudoku": 10, "prefix": 2, "maze": 4}[kind]
    return torch.randint(high, (batch, *SHAPES[kind]), generator=generator, dtype=torch.uint8)


def reasoner(puzzle, **options):
    torch.manual_seed(0)
    solver = Picard(rtol=1e-3, max_steps=60, damping=0.5, residual="position")
    model = Reasoner(puzzle, solver=solver, **options).eval()
    model.equilibrium.on_failure = "ignore"
    return model


@PUZZLES
@pytest.mark.parametrize("make", [Reasoner, FeedForwardReasoner])
def test_shapes_and_gradients_at_every_parameter(make, puzzle):
    torch.manual_seed(0)
    model = make(puzzle)
    given = puzzles(puzzle)
    logits = model(given)
    assert logits.shape == (3, CHOICES[puzzle], *SHAPES[puzzle])
    answer = model.choose(logits)
    assert answer.dtype == torch.uint8 and answer.shape == given.shape
    assert answer.min() >= (puzzle == "sudoku") and answer.max() <= (9 if puzzle == "sudoku" else 1)
    model.loss(logits, answer).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_parameters_are_few():
    count = lambda model: sum(p.numel() for p in model.parameters())  # noqa: E731
    assert count(Reasoner("prefix")) == 3 * 32 + 32 + 2 * 3 * 32 * 32 + 2 * 33
    assert count(Reasoner("maze")) == 9 * 4 * 32 + 32 + 2 * 9 * 32 * 32 + 2 * 33
    cell = (2 + 1) * 32 + 2 * 4 * 16 * 32
    assert count(Reasoner("sudoku")) == cell + 17
    assert count(FeedForwardReasoner("sudoku", layers=16)) == 16 * cell + 17


def test_sudoku_sums_over_row_column_box_and_digits():
    torch.manual_seed(0)
    cell = SudokuCell(2, 5, 7).double()
    z, x = torch.randn(2, 9, 81, 5, dtype=torch.float64), torch.randn(2, 9, 81, 2, dtype=torch.float64)
    row, column = np.divmod(np.arange(81), 9)
    line = (row[:, None] == row).astype(float) + (column[:, None] == column)
    box = (row[:, None] // 3 == row // 3) & (column[:, None] // 3 == column // 3)

    def mapped(part, v):
        out = v @ part.own.weight.T + (v.sum(1, keepdim=True) / 3) @ part.digits.weight.T
        for members, matrix in ((line, part.line), (box, part.box)):
            sums = torch.einsum("ij,bdjw->bdiw", torch.from_numpy(members.astype(float)), v) / 3
            out = out + sums @ matrix.weight.T
        return out

    out = mapped(cell.second, (mapped(cell.first, z) + cell.injection(x)).relu())
    expected = out / (out.square().mean(3, keepdim=True) + 1e-6).sqrt()
    assert torch.allclose(cell(z, cell.inject(x)), expected, atol=1e-12)


def test_sudoku_does_not_care_which_digit_is_which_nor_where_bands_lie():
    model, given = reasoner("sudoku"), puzzles("sudoku")
    model.equilibrium.solver = Picard(rtol=None, max_steps=6, damping=0.5)
    names = torch.tensor([0, 3, 1, 2, 9, 8, 4, 5, 7, 6], dtype=torch.uint8)
    with torch.no_grad():
        logits = model(given)
        renamed = model(names[given.long()])
        assert torch.allclose(renamed[:, (names[1:] - 1).long()], logits, atol=1e-3)
        bands = torch.arange(81).view(9, 9)[[3, 4, 5, 0, 2, 1, 6, 7, 8]].T.reshape(-1)  # rows moved, then transposed
        assert torch.allclose(model(given[:, bands]), logits[:, :, bands], atol=1e-3)


@PUZZLES
def test_a_puzzle_is_solved_alone_as_in_a_batch(puzzle):
    model, given = reasoner(puzzle), puzzles(puzzle, 6)
    together = model.solve(given)
    for row in range(6):
        alone = model.solve(given[row : row + 1])
        assert alone.steps == together.steps[row] and alone.status == together.status[row]
        assert torch.allclose(alone.state[0], together.state[row], atol=1e-4)
        assert torch.equal(model.read(alone.state)[0], model.read(together.state)[row])


@PUZZLES
@torch.no_grad()
def test_a_budget_s_answer_is_the_beginning_of_a_longer_run(puzzle):
    model, given = reasoner(puzzle), puzzles(puzzle)
    whole = model.solve(given, record=True)
    for budget in (1, 3, 7):
        model.equilibrium.solver = Picard(rtol=None, max_steps=budget, damping=0.5)
        assert torch.allclose(model.solve(given).state, whole.trajectory[budget - 1], atol=1e-5)


def test_the_map_is_the_same_at_any_size():
    cell = GridCell(1, 8, dims=1)
    short, long = torch.randn(1, 1, 20), torch.randn(1, 1, 300)
    long[..., 100:120] = short
    z = torch.zeros(1, 8, 300)
    inner = slice(105, 115)
    one, other = cell(z[..., :20], cell.inject(short)), cell(z, cell.inject(long))
    assert torch.allclose(other[..., inner], one[..., 5:15], atol=1e-6)  # what is near does not know how long it is
    rms = other.square().mean(1)
    assert torch.allclose(rms, torch.ones_like(rms), atol=1e-3)


def test_starts_are_drawn_for_a_share_of_the_samples():
    model, given = reasoner("prefix"), puzzles("prefix", 400)
    torch.manual_seed(0)
    start = model.random_start(given, 0.25)
    drawn = start.flatten(1).any(dim=1)
    assert 70 < drawn.sum() < 130
    assert start[drawn].std().item() == pytest.approx(1, abs=0.02)
    assert not model.random_start(given, 0.0).any() and model.random_start(given, 1.0).flatten(1).any(dim=1).all()


def test_answers_of_several_starts_are_compared_as_answers():
    model, given = reasoner("prefix"), puzzles("prefix")
    found = model.solve(given, starts=4, generator=torch.Generator().manual_seed(0))
    answers = torch.stack([model.read(found.starts.states[:, k]) for k in range(4)], dim=1)
    votes = (answers[:, :, None] == answers[:, None]).all(-1).sum(2)
    assert torch.equal(found.starts.votes, votes)


def test_in_evaluation_a_solve_costs_its_budget():
    model, given = reasoner("prefix"), puzzles("prefix")
    model.equilibrium.solver = Picard(rtol=None, max_steps=3)
    cell, context = model.cell, model.cell.inject(model.encode(given))
    z = cell.initial_state(context)
    with torch.no_grad():
        for _ in range(3):
            z = cell(z, context)
        assert torch.equal(model.solve(given).state, z)
    for _ in range(8):  # where a gradient is recorded, the phantom's own evaluations follow
        z = torch.lerp(z, cell(z, context), 0.7)
    assert torch.allclose(model.solve(given).state, z, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reasoner("chess"), "puzzle='chess' is unknown; pass one of sudoku, prefix, maze"),
        (lambda: Reasoner("maze", hidden=8), "hidden=8, but a cell for maze"),
        (lambda: FeedForwardReasoner("maze", layers=0), "layers=0 computes nothing"),
        (lambda: GridCell(1, 4, dims=3), "dims=3"),
    ],
)
def test_what_there_is_not_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
