"""Puzzles from the command line: a run of each, and what `poise solve` answers."""

import json

import numpy as np
import pytest

from poise.cli.main import main
from poise.data.puzzles import prefix, sudoku
from tests.cli.tiny_runs import TINY, flags

SMALL = flags(
    "--max_steps 3 --data.test_instances 6 --data.batch_size 4 --model.width 8 --starts.puzzles 2 --threads 1"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run on Sudoku that has hardly begun."""
    folder = tmp_path_factory.mktemp("reason") / "run"
    more = flags("--data.pool 8 --eval_solver.max_steps 30 --accelerator cpu --devices 1")
    assert main(["train", "reason", *SMALL, *more, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def puzzles(tmp_path):
    """A file of two puzzles, the second filled whole but for nothing."""
    drawn = sudoku.generate(2, np.random.default_rng(0), "test", 70)
    path = tmp_path / "puzzles.txt"
    path.write_text("# two\n" + "\n".join(sudoku.written(one) for one in drawn.given) + "\n")
    return path


def test_a_line_for_each_puzzle(poise, run, puzzles, tmp_path):
    code, out, err = poise("solve", run, puzzles, "--json", tmp_path / "answers.json")
    lines = out.splitlines()
    assert code == 1 and len(lines) == 2 and "0 of 2 valid" in err
    for line in lines:
        answer, evaluations, status, verdict = line.split()
        assert len(answer) == 81 and int(evaluations) > 0 and status in ("CONVERGED", "BUDGET") and verdict == "invalid"
    found = json.loads((tmp_path / "answers.json").read_text())
    assert [one["answer"] for one in found["answers"]] == [line.split()[0] for line in lines]
    assert all(one["valid"] is False and one["agreement"] is None for one in found["answers"])


def test_starts_are_drawn_with_a_seed(poise, run, puzzles):
    first, again, other = (poise("solve", run, puzzles, "--starts", 4, "--seed", seed)[1] for seed in (0, 0, 1))
    assert first == again and "agree " in first and "agree " in other


def test_watching_shows_every_evaluation(poise, run, puzzles):
    code, _, err = poise("solve", run, puzzles, "--watch")
    assert code == 1 and "evaluation 1, residual" in err and err.count("------+-------+------") >= 4
    assert "\033" not in err  # no terminal, no escape codes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--starts", "0"], "--starts is 0; pass at least 1."),
        (["--start", "2"], "poise solve has no option --start; did you mean --starts?"),
        (["--solver.damping", "1.5"], "--solver.damping is 1.5; it must be in (0, 1]."),
    ],
)
def test_what_means_nothing_is_refused(poise, run, puzzles, arguments, message):
    code, out, err = poise("solve", run, puzzles, *arguments)
    assert code == 2 and out == "" and err.strip() == f"poise: {message}"


def test_files_that_hold_no_puzzle(poise, run, tmp_path):
    for text, message in (
        (b"123\n", "line 1: the puzzle has 3 cells; write 81 in one line, or nine lines of nine."),
        (b"\n", "the text holds no puzzle; write one a line."),
        (b"\xff\xfe", "is not UTF-8"),
    ):
        path = tmp_path / "text"
        path.write_bytes(text)
        code, out, err = poise("solve", run, path)
        assert code == 2 and out == "" and message in err and len(err.splitlines()) == 1
    code, _, err = poise("solve", run, tmp_path / "none")
    assert code == 2 and "No such file or directory" in err


def test_a_change_that_the_network_does_not_bear_is_said(poise, run, puzzles):
    _, _, err = poise("solve", run, puzzles, "--solver.max_steps", 2)
    assert "warning: the network does not bear max_steps 2 in place of 30: of 6 hard test puzzles" in err


def test_evaluate_says_it_too(poise, run):
    code, out, err = poise("evaluate", run, "--solver.max_steps", 2)
    assert code == 0 and "solved, of all test puzzles" in out and "does not bear max_steps 2 in place of 30" in err
    code, _, err = poise("evaluate", run)
    assert code == 0 and err == ""


def test_only_runs_of_reason_solve_puzzles(poise, tmp_path, puzzles):
    text = tmp_path / "text.txt"
    text.write_text("a text of some length. " * 40)
    assert (
        main(["train", "language", "--data", str(text), *TINY, "--max_steps", "1", "--out", str(tmp_path / "run")]) == 0
    )
    code, _, err = poise("solve", tmp_path / "run", puzzles)
    assert code == 2 and "poise solve is for runs of reason, but" in err and "is a run of language." in err


def test_every_puzzle_has_its_recipe_and_all_is_one_run_of_each(poise, tmp_path):
    code, out, _ = poise("train", "reason", "--puzzle", "prefix", "--print_config")
    assert code == 0 and "recipe: reason-prefix" in out and "puzzle: prefix" in out and "- 512" in out
    code, out, _ = poise("train", "reason", "--print_config")
    assert code == 0 and "recipe: null" in out and "puzzle: sudoku" in out
    small = flags(
        "--data.test_instances 2 --max_steps 1 --data.batch_size 2 --starts.puzzles 1 --eval_solver.max_steps 3"
    )
    assert main(["train", "reason", "--puzzle", "all", *small, "--data.pool", "2", "--out", str(tmp_path / "run")]) == 0
    found = {
        name: json.loads((tmp_path / f"run-{name}" / "summary.json").read_text())
        for name in ("sudoku", "prefix", "maze")
    }
    assert {name: one["recipe"] for name, one in found.items()} == {name: f"reason-{name}" for name in found}
    code, _, err = poise("train", "reason", "--puzzle", "all", "--recipe", "reason-maze")
    assert code == 2 and "all of data.puzzle are runs with a recipe each" in err


def test_bits_may_come_from_standard_input(poise, tmp_path, monkeypatch):
    import io

    settings = flags("--data.train_sizes [4,6] --data.test_sizes [6] --eval_solver.max_steps 20")
    assert poise("train", "reason", "--puzzle", "prefix", *SMALL, *settings, "--out", tmp_path / "run")[0] == 0
    bits = prefix.generate(3, 9, np.random.default_rng(0)).given
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(map(prefix.written, bits))))
    code, out, _ = poise("solve", tmp_path / "run", "-")
    for given, line in zip(bits, out.splitlines(), strict=True):
        answer = np.array([int(bit) for bit in line.split()[0]], np.uint8)
        assert (line.split()[-1] == "valid") == bool(prefix.is_solution(given[None], answer[None])[0])
    assert code == (0 if all(line.endswith(" valid") for line in out.splitlines()) else 1)


def test_a_run_stands_beside_those_of_peers(poise, run, tmp_path):
    peer, later = tmp_path / "peer", tmp_path / "later"
    small = [*SMALL, *flags("--data.pool 8 --eval_solver.max_steps 5 --accelerator cpu --devices 1")]
    code, out, _ = poise("train", "reason", *small, "--model", "explicit", "--model.layers", 2, "--out", peer)
    assert code == 0 and "this run" not in out
    code, out, _ = poise("train", "reason", *small, "--beside", f"{run},{peer}", "--out", later)
    assert code == 0
    (header,) = [line.split() for line in out.splitlines() if "this run" in line]
    assert header == ["this", "run", "run", "peer"]
    (parameters,) = [line.split() for line in out.splitlines() if line.lstrip().startswith("parameters")][-1:]
    counted = [json.loads((folder / "summary.json").read_text())["parameters"] for folder in (later, run, peer)]
    assert parameters[1:] == [f"{number:,}" for number in counted] and counted[2] != counted[0]
    page = (later / "report.html").read_text()
    assert "Beside other runs" in page and "Solved, beside peers" in page

    code, out, _ = poise("report", later, "--beside", peer)
    assert code == 0 and "peer" in out and (later / "report.html").read_text() != page


def test_what_cannot_stand_beside_a_run_is_refused(poise, run, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    code, out, err = poise("report", run, "--beside", begun)
    assert code == 2 and out == "" and f"the run in {begun} is not finished" in err
    (begun / "config.yaml").write_text("task: language\n")
    code, out, err = poise("report", run, "--beside", begun)
    assert code == 2 and out == "" and "is a run of language" in err
    code, out, err = poise("train", "reason", "--beside", tmp_path / "nowhere", "--out", tmp_path / "new")
    assert code == 2 and "there is no run in" in err and not (tmp_path / "new").exists()


def test_an_unknown_puzzle_is_answered_with_those_there_are(poise):
    code, out, err = poise("train", "reason", "--puzzle", "prefixes")
    assert code == 2 and out == "" and "one of sudoku, prefix, maze, all, got 'prefixes'; did you mean prefix?" in err
