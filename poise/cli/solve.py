"""`poise solve RUN FILE_OR_-`: puzzles answered by a run, and checked by their rules."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from poise.cli.errors import DONE, FAILED, UsageError
from poise.cli.opening import ENGINE, SOLVER, open_run, run_arguments

OVERRIDES = {**SOLVER, "accelerator": ENGINE["accelerator"]}
FRAME_SECONDS = 0.08  # between two evaluations that are watched


def run(argv: list[str]) -> int:
    """Print a line for each puzzle: the answer, the evaluations, how the solve ended, and valid or invalid."""
    parser = run_arguments(
        "solve",
        "Solve puzzles with a run of reason: Sudoku as lines of 81 characters (. or 0 for a blank, # starts a comment) "
        "or nine lines of nine; bits as lines; mazes as blocks of #, space, S and G.",
        OVERRIDES,
    )
    parser.add_argument("file", metavar="FILE_OR_-", help="a text of puzzles; - reads standard input")
    parser.add_argument("--starts", type=int, default=1, metavar="K", help="solve from K starts, answer with most")
    parser.add_argument("--seed", type=int, default=0, help="seed of the starts (default 0)")
    parser.add_argument("--watch", action="store_true", help="show how each answer comes, evaluation by evaluation")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the answers there as well")
    arguments = parser.parse(argv)
    if arguments.starts < 1:
        raise UsageError(f"--starts is {arguments.starts}; pass at least 1.")
    folder, task = open_run(arguments, OVERRIDES)
    if task.task_name != "reason":
        raise UsageError(f"poise solve is for runs of reason, but {folder.path} is a run of {task.task_name}.")
    if arguments.starts > 1 and not task.solves:
        raise UsageError(f"--starts does not apply: the network of {folder.path} solves nothing; leave it out.")

    from poise.data.puzzles.files import read_puzzles
    from poise.tasks.puzzle_solving import solve_puzzles

    puzzle = task.config.data.puzzle
    puzzles = read_puzzles(_text(arguments.file), puzzle)
    task.warn_of_solver()
    watch = _watching(puzzle) if arguments.watch else None
    began, answers = time.perf_counter(), []
    for answer in solve_puzzles(task, puzzles, starts=arguments.starts, seed=arguments.seed, watch=watch):
        answers.append(answer)
        print(_line(answer, puzzle), flush=True)
    seconds = time.perf_counter() - began
    valid = sum(answer.valid for answer in answers)
    print(f"{valid} of {len(answers)} valid, {len(answers) / seconds:.1f} puzzles a second", file=sys.stderr)
    if arguments.json is not None:
        from poise.tasks.run_folder import write_atomically

        content = {"run": str(folder.path), "puzzle": puzzle, "answers": [_values(one, puzzle) for one in answers]}
        write_atomically(arguments.json, (json.dumps(content, indent=2) + "\n").encode())
    return DONE if valid == len(answers) else FAILED


def _text(file: str) -> str:
    if file == "-":
        return sys.stdin.read()
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {file} ({error.strerror}); check the path.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8 (byte {error.start}); pass a text.") from None


def _line(answer: Any, puzzle: str) -> str:
    ends = [] if answer.evaluations is None else [f"{answer.evaluations:4}", answer.status]
    agreement = [] if answer.agreement is None else [f"agree {answer.agreement:.0%}"]
    return "  ".join([answer.written(puzzle), *ends, *agreement, "valid" if answer.valid else "invalid"])


def _values(answer: Any, puzzle: str) -> dict[str, Any]:
    found = {"answer": answer.written(puzzle), "evaluations": answer.evaluations, "status": answer.status}
    return {**found, "agreement": answer.agreement, "valid": answer.valid}


def _watching(puzzle: str) -> Callable[[Any, Any, Any], None]:
    """Return what draws an answer over the one before, in a terminal; elsewhere one after another."""
    from poise.tasks.puzzle_frames import drawn

    lines = 0

    def watch(given: Any, answer: Any, step: Any) -> None:
        nonlocal lines
        picture = drawn(puzzle, given, answer, colour=sys.stderr.isatty())
        head = f"evaluation {step.number}, residual {float(step.residual[0]):.1e}"
        if sys.stderr.isatty() and step.number > 1:
            print(f"\033[{lines}A", end="", file=sys.stderr)
        lines = picture.count("\n") + 2
        print(f"{head:60}\n{picture}", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            time.sleep(FRAME_SECONDS)

    return watch
