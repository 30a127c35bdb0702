"""The page of a run on puzzles, from what its folder holds; parts that are not there (yet) are left out. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from poise.report import Block, Cell, Figure, Page, Section, Series, Table, Tile, bar_chart, grid_figure, line_chart
from poise.tasks.report_parts import Recorded, column, costs, page, statuses, training_solves
from poise.tasks.run_folder import RunFolder

DIFFICULTY = {"sudoku": "rounds of forced digits", "prefix": "bits", "maze": "length of the way"}
PUZZLES = {"sudoku": "Sudoku", "prefix": "prefix sums", "maze": "mazes"}


def build_page(folder: RunFolder) -> Page:
    """Return the report of a run."""
    run = Recorded.read(folder)
    puzzle = str(run.settings.get("data", {}).get("puzzle"))
    sections = [
        Section("One puzzle", _frames(run.analysis, puzzle)),
        Section("Solving", _solving(run.analysis, puzzle)),
        Section("Peers", _peers(run)),
        Section("Right and wrong", _signs(run.analysis)),
        Section("Learning", _learning(run.rows)),
        Section("Equilibrium", [*training_solves(run.rows), *statuses(run.summary)]),
        Section("Cost", costs(run.summary, "puzzle")),
    ]
    kind = run.settings.get("model", {}).get("kind")
    network = "A feed-forward network" if kind == "explicit" else "An equilibrium reasoner"
    return page(run, f"{network} on {PUZZLES[puzzle]}", _sentence, _tiles, sections, "puzzle")


def _sentence(run: Recorded) -> str:
    solved = run.summary["val_solved"]
    return (
        f"{solved:.1%} of fresh puzzles solved, every position right, after {run.summary['steps']:,} steps; training "
        "shares no puzzle with the test."
    )


def _tiles(run: Recorded) -> list[Tile]:
    sizes = run.analysis.get("sizes", [])
    return [Tile(f"solved, {size['name']}", size["solved"], "percent", "of fresh puzzles") for size in sizes[-2:]]


def _frames(analysis: Mapping[str, Any], puzzle: str) -> list[Block]:
    found = analysis.get("frames")
    if not found:
        return []
    figures = [_frame(puzzle, found["given"], frame, found["frames"][-1]["answer"]) for frame in found["frames"]]
    curve = line_chart(
        [Series("residual", list(range(1, len(found["residuals"]) + 1)), found["residuals"])],
        title="Residual of this puzzle",
        x_label="evaluations of the cell",
        y_label="slowest position",
        log_y=True,
    )
    said = (
        "A test puzzle of the hardest size, read off on the way. What is given stands in bold; the darker a place, the "
        "surer its answer; orange is what changes before the end."
    )
    still = "The same puzzle; the darker a place, the more its state still moves, from 1 % to all of its size."
    moving = [_moving(puzzle, found["given"], frame) for frame in found["frames"][1:-1]]
    return [said, *figures, still, *moving, curve]


def _frame(puzzle: str, given: Any, frame: Mapping[str, Any], last: Any) -> Figure:
    answer, sure, change = frame["answer"], frame["confidence"], frame["residual"]
    if puzzle == "maze":
        rows = zip(given, answer, sure, last, strict=True)
        cells, width = [_maze_cell(*place) for row in rows for place in zip(*row, strict=True)], len(given[0])
        moving = max(max(row) for row in change)
    else:
        cells = [_cell(puzzle, g, a, s, e) for g, a, s, e in zip(given, answer, sure, last, strict=True)]
        width, moving = 9 if puzzle == "sudoku" else 32, max(change)
    drawn = [cells[start : start + width] for start in range(0, len(cells), width)]
    number = frame["evaluation"]
    caption = f"The slowest place moves by {moving:.1%}." if number > 1 else "From zeros."
    title = f"After {number} evaluation{'s' if number > 1 else ''}"
    return grid_figure(drawn, title=title, caption=caption, boxed=puzzle == "sudoku")


def _moving(puzzle: str, given: Any, frame: Mapping[str, Any]) -> Figure:
    """Draw how far each place still moves, from a hundredth of its state to all of it."""
    change = frame["residual"]
    if puzzle == "maze":
        rows = [
            [Cell("", _movement(c), "block" if g == 1 else "answer") for g, c in zip(*row, strict=True)]
            for row in zip(given, change, strict=True)
        ]
    else:
        width = 9 if puzzle == "sudoku" else 32
        symbols = [str(g) if g else "" for g in given] if puzzle == "sudoku" else [""] * len(given)
        cells = [
            Cell(symbol, kind="given") if symbol else Cell("", _movement(c))
            for symbol, c in zip(symbols, change, strict=True)
        ]
        rows = [cells[start : start + width] for start in range(0, len(cells), width)]
    return grid_figure(rows, title=f"Residual after {frame['evaluation']} evaluations", boxed=puzzle == "sudoku")


def _movement(change: float) -> float:
    """Return 0 for a hundredth and 1 for all, on a logarithmic scale."""
    return min(1.0, max(0.0, 1 + math.log10(max(change, 1e-9)) / 2))


def _cell(puzzle: str, given: int, answer: int, sure: float, last: int) -> Cell:
    if puzzle == "sudoku" and given:
        return Cell(str(given), kind="given")
    return Cell(str(answer), _certainty(sure, 9 if puzzle == "sudoku" else 2), "answer" if answer == last else "wrong")


def _maze_cell(given: int, answer: int, sure: float, last: int) -> Cell:
    if given == 1:
        return Cell("", kind="block" if not answer else "wrong")
    symbol = "SG"[given - 2] if given > 1 else ""
    return Cell(symbol, (_certainty(sure, 2) + 1) / 2 if answer else 0.0, "answer" if answer == last else "wrong")


def _certainty(probability: float, choices: int) -> float:
    """Return 0 for a guess among the choices and 1 for certainty."""
    return max(0.0, (probability - 1 / choices) / (1 - 1 / choices))


def _solving(analysis: Mapping[str, Any], puzzle: str) -> list[Block]:
    sizes = analysis.get("sizes", [])
    if not sizes:
        return []
    if "budgets" not in sizes[0]:
        names, solved = [size["name"] for size in sizes], [size["solved"] for size in sizes]
        return [bar_chart(names, {"solved": solved}, title="Solved", label="part of fresh puzzles", unit="percent")]
    accuracy = line_chart(
        [
            Series(size["name"], [float(b) for b in size["budgets"]], list(size["budgets"].values()), markers=True)
            for size in sizes
        ],
        title="Solved against evaluations",
        x_label="evaluations of the cell, at most",
        y_label="part of fresh puzzles",
        log_x=True,
        y_unit="percent",
    )
    scatter = line_chart(
        [Series(one["name"], one["difficulty"], one["evaluations"], style="points") for one in analysis["scatter"]],
        title="Evaluations against difficulty",
        x_label=DIFFICULTY[puzzle],
        y_label="evaluations",
        from_zero=True,
        caption="A puzzle takes as many as it needs; nobody says how many.",
    )
    budgets = list(sizes[0]["budgets"])
    table = Table(
        ("size", *(f"within {budget}" for budget in budgets), "evaluations", "converged", "starts agree"),
        [
            (
                size["name"],
                *size["budgets"].values(),
                round(size["evaluations"], 1),
                size["converged"],
                size["agreement"],
            )
            for size in sizes
        ],
        "Puzzles solved within a budget of evaluations; mean evaluations; solves that converged; pairs of starts that "
        "give one answer.",
        ("number", *["percent"] * len(budgets), "number", "percent", "percent"),  # type: ignore[arg-type]
    )
    return [accuracy, scatter, table]


def _peers(run: Recorded) -> list[Block]:
    """Return how networks kept beside this one solve the same sizes; those without starts have none to agree."""
    runs = {"this run": run.analysis, **{peer["name"]: peer["analysis"] for peer in run.peers}}
    sizes = {name: {size["name"]: size for size in analysis.get("sizes", [])} for name, analysis in runs.items()}
    shared = [size for size in sizes["this run"] if all(size in found for found in sizes.values())]
    if len(runs) < 2 or not shared:  # a peer on other puzzles has no size in common
        return []
    solved = {name: [found[size]["solved"] for size in shared] for name, found in sizes.items()}
    measures = ("solved", "solved_from_random", "converged", "agreement")
    rows = [
        (size, name, *(found[size].get(measure) for measure in measures))
        for size in shared
        for name, found in sizes.items()
    ]
    table = Table(
        ("size", "network", "solved", "from random starts", "converged", "starts agree"),
        rows,
        "Beside the runs that were named. From random starts: solves from N(0, 1) that end at the right answer.",
        ("number", "number", "percent", "percent", "percent", "percent"),
    )
    chart = bar_chart(shared, solved, title="Solved, beside peers", label="part of fresh puzzles", unit="percent")
    return [chart, table]


def _signs(analysis: Mapping[str, Any]) -> list[Block]:
    found = analysis.get("signs")
    if not found:
        return []
    right, wrong = found["right"], found["wrong"]
    if not wrong or not right:
        only = "right" if right else "wrong"
        return [f"All {right + wrong:,} answers are {only}: what tells right from wrong is undefined here."]
    rows = [(name, value) for name, value in found["auroc"].items()]
    table = Table(
        ("sign", "AUROC"),
        rows,
        f"How often a right answer has the better sign than a wrong one; a half is a guess. Right {right:,}, wrong "
        f"{wrong:,}, all sizes together.",
    )
    counts: Sequence[Mapping[str, float]] = analysis["agreement"]
    agreement = Table(
        ("starts agree", "right", "wrong"),
        [(count["agreement"], count["right"], count["wrong"]) for count in counts],
        "Answers of the hardest size, by the part of pairs of starts that give one answer.",
        ("percent", "number", "number"),
    )
    return [table, agreement]


def _learning(rows: Sequence[Mapping[str, float]]) -> list[Block]:
    if not rows:
        return []
    return [
        line_chart(
            [
                Series("training, one batch", *column(rows, "loss"), style="faint"),
                Series("test", *column(rows, "val_loss"), markers=True),
            ],
            title="Loss",
            x_label="step",
            y_label="nats a position",
        )
    ]
