"""Runs on puzzles: what they learn, what they keep, and what they show."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from poise.configs.base import RegularizationConfig, SolverConfig, TrainerConfig
from poise.configs.errors import ConfigError
from poise.configs.reason import PuzzleDataConfig, ReasonConfig, ReasonerConfig, StartsConfig
from poise.data.puzzles import in_split, prefix, sudoku
from poise.tasks.puzzle_solving import solve_puzzles
from poise.tasks.reason import ReasonTask
from poise.tasks.reason_analysis import answers_within, shown
from poise.tasks.regularization import observed, penalty
from poise.tasks.run_folder import RunFolder
from poise.tasks.tolerance import intolerance
from poise.tasks.training import train

PUZZLES = pytest.mark.parametrize("puzzle", ["sudoku", "prefix", "maze"])
SIZES = {"sudoku": ((50, 60), (60, 0)), "prefix": ((4, 8), (6, 12)), "maze": ((5,), (5, 7))}
PICARD = SolverConfig(name="picard", rtol=1e-2, max_steps=6, damping=0.8, residual="position")


def tiny(puzzle="prefix", steps=4, **more):
    train_sizes, test_sizes = SIZES[puzzle]
    data = PuzzleDataConfig(
        puzzle=puzzle, train_sizes=train_sizes, test_sizes=test_sizes, pool=6, test_instances=12, batch_size=8
    )
    settings = {
        "data": data,
        "model": ReasonerConfig(width=8),
        "starts": StartsConfig(compared=3, puzzles=4),
        "solver": PICARD,
        "eval_solver": replace(PICARD, max_steps=60),
        "regularization": RegularizationConfig(
            jacobian_weight=0.02, jacobian_frequency=1.0, jacobian_samples=2, jitter=5
        ),
        "trainer": TrainerConfig(
            max_steps=steps, val_check_interval=steps, checkpoint_every_n_steps=2, accelerator="cpu"
        ),
    }
    return ReasonConfig(**{**settings, **more})


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A run on short strings that has learnt something; tests only read it."""
    config = tiny(steps=150, model=ReasonerConfig(width=16))
    config = replace(
        config, solver=replace(PICARD, max_steps=10, rtol=1e-3), optimizer=replace(config.optimizer, lr=5e-3)
    )
    config = replace(config, eval_solver=replace(PICARD, max_steps=100, rtol=1e-3))
    folder = RunFolder(tmp_path_factory.mktemp("reason") / "run")
    return folder, train(ReasonTask, config, folder)


@PUZZLES
@pytest.mark.parametrize("kind", ["deq", "explicit"])
def test_a_run_trains_and_opens_again(tmp_path, puzzle, kind):
    config = tiny(puzzle, model=ReasonerConfig(kind=kind, width=8, layers=3))
    folder = RunFolder(tmp_path / "run")
    summary = train(ReasonTask, config, folder)
    assert summary["puzzle"] == puzzle and 0 <= summary["val_solved"] <= 1 and summary["val_loss"] > 0
    task = ReasonTask.open(config, folder)
    given, _ = task.test_sets[-1].batch
    answers = list(solve_puzzles(task, list(given.numpy())))
    assert len(answers) == 12 and all((answer.status is None) == (kind == "explicit") for answer in answers)
    page = folder.report.read_text()
    assert ("A feed-forward network on" if kind == "explicit" else "An equilibrium reasoner on") in page
    assert ("After 1 evaluation" in page) == (kind == "deq")


def test_short_strings_are_learnt_and_longer_ones_solved(learnt):
    folder, summary = learnt
    analysis = json.loads(folder.analysis.read_text())
    assert summary["val_solved_6_bits"] > 0.9
    short, long = analysis["sizes"]
    assert short["solved"] == summary["val_solved_6_bits"] and long["evaluations"] > short["evaluations"]
    # More evaluations solve more, and hardly any solve nothing: the solver is what answers.
    assert list(short["budgets"]) == ["10", "16", "25", "50", "100"]
    assert analysis["scatter"][0]["difficulty"] == [6] * 12
    text = shown(analysis)
    assert "solved within" in text and "6 bits" in text and "right from wrong" in text


@pytest.mark.parametrize("damping", [0.8, 1.0])  # without damping hardly a solve converges, and the best state counts
def test_answers_within_a_budget_are_those_of_a_shorter_solve(learnt, damping):
    folder, _ = learnt
    _, settings = folder.read_config()
    budgets = (1, 5, 20, 60)
    task = opened(folder, settings, max_steps=60, damping=damping)
    given, _ = task.test_sets[-1].batch
    with torch.no_grad():
        found, solution = answers_within(task.model, given, budgets)
        for budget in budgets:
            shorter = opened(folder, settings, max_steps=budget, damping=damping).model
            assert torch.equal(found[budget], shorter.choose(shorter(given)))
    assert (solution.steps > 20).any()


def test_without_the_solver_the_answer_is_gone(learnt):
    folder, _ = learnt
    _, settings = folder.read_config()
    task = opened(folder, settings)
    given, answer = task.test_sets[0].batch
    with torch.no_grad():
        context = task.model.cell.inject(task.model.encode(given))
        at_start = task.model.read(task.model.cell.initial_state(context))
        solved = task.model.choose(task.model(given))
    rate = lambda found: (found == answer).all(dim=1).double().mean()  # noqa: E731
    assert rate(at_start) < 0.2 < 0.9 < rate(solved)


def opened(folder, settings, **solver):
    from poise.configs.fields import from_dict

    config = from_dict(ReasonConfig, settings)
    task = ReasonTask.open(replace(config, eval_solver=replace(config.eval_solver, **solver)), folder)
    task.eval()
    return task


def test_a_puzzle_beside_others_is_solved_as_alone(learnt):
    folder, _ = learnt
    task = opened(folder, folder.read_config()[1])
    bits = list(prefix.generate(5, 10, np.random.default_rng(7), "test").given)
    together = list(solve_puzzles(task, bits))
    alone = [next(iter(solve_puzzles(task, [one]))) for one in bits]
    assert [a.evaluations for a in together] == [a.evaluations for a in alone]
    assert [a.answer.tolist() for a in together] == [a.answer.tolist() for a in alone]
    assert [a.valid for a in together] == [bool(prefix.is_solution(a.given[None], a.answer[None])[0]) for a in together]
    mixed = list(solve_puzzles(task, [bits[0][:4], *bits, bits[1][:7]], starts=3))
    assert [len(a.answer) for a in mixed] == [4, 10, 10, 10, 10, 10, 7] and all(0 <= a.agreement <= 1 for a in mixed)


def test_every_evaluation_can_be_watched(learnt):
    folder, _ = learnt
    task = opened(folder, folder.read_config()[1])
    seen = []
    bits = prefix.generate(2, 8, np.random.default_rng(1), "test").given
    answers = list(solve_puzzles(task, list(bits), watch=lambda *step: seen.append(step)))
    assert [step.number for _, _, step in seen] == [n for a in answers for n in range(1, a.evaluations + 1)]
    assert seen[-1][1].tolist() == answers[-1].answer.tolist()


def test_saved_runs_keep_damping_and_tolerance_and_a_change_that_hurts_is_said(learnt):
    folder, _ = learnt
    settings = folder.read_config()[1]
    assert settings["solver"]["damping"] == 0.8 and settings["eval_solver"]["rtol"] == 1e-3
    task = opened(folder, settings)
    layer = task.model.equilibrium
    assert layer.eval_solver.damping == 0.8 and layer.eval_solver.rtol == 1e-3
    assert layer.adjoint.damping == 0.8 and layer.adjoint.recorded_only
    trained = task.config.eval_solver
    assert intolerance(task, trained) is None
    assert intolerance(opened(folder, settings, max_steps=99), trained) is None
    said = intolerance(opened(folder, settings, max_steps=2), trained)
    assert "does not bear max_steps 2 in place of 100: of 12 hard test puzzles" in said


@PUZZLES
def test_a_resumed_run_ends_at_the_same_bits(tmp_path, puzzle):
    whole, resumed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "resumed")
    train(ReasonTask, tiny(puzzle), whole)
    shutil.copytree(whole.path, resumed.path)
    for path in (resumed.weights, resumed.checkpoints / "step-00000004.ckpt"):
        path.unlink()
    train(ReasonTask, tiny(puzzle), resumed, resume=True)
    expected, found = (load_file(one.weights) for one in (whole, resumed))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_part_of_the_pool_may_be_beyond_singles():
    config = tiny("sudoku")
    data = replace(config.data, pool=4, hard=0.5, test_sizes=(0, 1), test_instances=2)
    task = ReasonTask.create(replace(config, data=data))
    filled = [(sudoku.forced(part)[0] > 0).all(axis=1).tolist() for part in (
        task.training_puzzles.pool.given, *(one.batch[0].numpy() for one in task.test_sets)
    )]  # fmt: skip
    assert filled == [[True, True, False, False], [True, True], [False, False]]
    assert [one.name for one in task.test_sets] == ["minimal", "hard"]


@PUZZLES
def test_training_and_test_share_no_puzzle(puzzle):
    task = ReasonTask.create(tiny(puzzle))
    # What decides the split: of Sudoku the solution, whatever is given of it.
    part = 1 if puzzle == "sudoku" else 0
    for index in range(5):
        assert in_split(task.training_batch(index)[part].numpy(), "train").all()
        assert torch.equal(task.training_batch(index)[0], task.training_batch(index)[0])
    for one in task.test_sets:
        assert in_split(one.batch[part].numpy(), "test").all()
    sides = [task.training_batch(0, rank, 2)[0] for rank in (0, 1)]
    assert not torch.equal(*sides)
    other = ReasonTask.create(replace(tiny(puzzle), seed=1))
    assert not torch.equal(other.test_sets[0].batch[0], task.test_sets[0].batch[0])


def test_the_penalty_may_look_at_a_few_samples():
    task = ReasonTask.create(tiny())
    task.train()
    with observed(task.model) as solves:
        task.training_loss(task.training_batch(0))
    shapes = []
    cell = solves[0].layer.cell
    cell.register_forward_hook(lambda module, given, out: shapes.append(len(given[0])))
    settings = RegularizationConfig(jacobian_weight=1.0, jacobian_frequency=1.0, jacobian_samples=3)
    assert penalty(solves, settings, 0.0, torch.Generator()) > 0
    assert shapes == [3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PuzzleDataConfig(train_sizes=(16, 40)), "train_sizes has 16 clues; pass 17 to 81"),
        (lambda: PuzzleDataConfig(train_sizes=(40, 24)), r"train_sizes are \[40, 24\]; pass the fewest and the most"),
        (lambda: PuzzleDataConfig(puzzle="maze", train_sizes=(8,), test_sizes=(9,)), "mazes of size 8; pass an odd"),
        (lambda: PuzzleDataConfig(puzzle="prefix", train_sizes=(0, 4), test_sizes=(9,)), "strings of 0 bits"),
        (lambda: PuzzleDataConfig(hard=1.5), "hard is 1.5"),
        (
            lambda: PuzzleDataConfig(puzzle="maze", train_sizes=(9,), test_sizes=(9,), hard=0.5),
            "told apart by their size",
        ),
        (lambda: PuzzleDataConfig(test_sizes=()), "test_sizes is empty"),
        (lambda: StartsConfig(random=1.5), "random is 1.5"),
        (lambda: StartsConfig(compared=1), "compared is 1; it takes at least 2"),
        (lambda: tiny("maze", model=ReasonerConfig(hidden=4)), "model.hidden is 4, but the cell of maze"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
