import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks import chart, solver_tables


def entry(cell, library, solver, seconds=None, *, direction="forward", tolerance=1e-6, default=False, peak=10):
    found = {
        "direction": direction, "cell": cell, "tolerance": tolerance, "library": library, "solver": solver,
        "default": default, "tuned": True, "reached": seconds is not None, "evaluations": 20, "rows": 80, "products": 5,
        "error": 1e-7, "own_rtol": 1e-6,
    }  # fmt: skip
    if seconds is not None:
        found |= {"seconds": seconds, "overhead": 1.5, "state_bytes": 10, "peak_bytes": peak}
    return found


@pytest.fixture
def content():
    return {
        "rule": "the rule",
        "solves": [
            entry("dense256", "poise", "Anderson()", 2.0, default=True),
            entry("dense256", "poise", "Picard()", 1.0),
            entry("dense256", "torchdeq", "broyden", 4.0),
            entry("dense256", "torchdeq", "anderson", 3.0),
            entry("hard", "poise", "Anderson()", 1.0, default=True),
            entry("hard", "poise", "Picard()"),
            entry("hard", "torchdeq", "broyden", 10.0),
            entry("conv", "poise", "Anderson()", default=True),
            entry("conv", "torchdeq", "broyden", 1.0),
        ],
        "steps": [
            entry("dense256", "poise", "Anderson()", 5.0, direction="step", tolerance=1e-4, default=True, peak=30),
            entry("dense256", "torchdeq", "ift", 4.0, direction="step", tolerance=1e-4),
        ],
        "overhead": [
            {"cell": "conv", "library": "poise", "solver": "Picard()", "overhead": 1.04, "floor": 1.01,
             "floor_bytes": 2e6, "copy_bandwidth": 2e9},
            {"cell": "conv", "library": "torchdeq", "solver": "broyden", "overhead": 4.4},
        ],
        "mixed": {"races": [], "backward": [{"cell": "mixed linear", "rows": 50, "whole_batch": 100, "ratio": 0.5}]},
    }  # fmt: skip


def test_ratios_are_of_the_fastest_and_means_of_their_logarithms(content):
    found = {duel.cell: duel for duel in solver_tables.duels(content["solves"])}
    assert found["dense256"].ratio == pytest.approx(1 / 3)
    assert found["dense256"].default_ratio == pytest.approx(2 / 3)
    assert found["hard"].ratio == pytest.approx(0.1)
    assert found["conv"].ratio is None
    assert solver_tables.geometric_mean([4.0, 1.0, None]) == pytest.approx(2.0)
    assert solver_tables.geometric_mean([None]) is None
    summary = solver_tables.summary(content)
    assert summary["forward to 1e-6, fastest against fastest, geometric mean"] == pytest.approx((1 / 30) ** 0.5)
    assert summary["forward to 1e-6, fastest against fastest, geometric mean without hard"] == pytest.approx(1 / 3)
    assert summary["training step, default against fastest, geometric mean"] == pytest.approx(1.25)


def test_a_fixed_budget_is_told_apart(content):
    before = solver_tables.summary(content)["training step, the same without fixed budgets"]
    step = next(entry for entry in content["steps"] if entry["library"] == "poise")
    content["steps"].append(
        {**step, "solver": "fixed", "default": False, "own_rtol": None, "seconds": 1e-3 * step["seconds"]}
    )
    after = solver_tables.summary(content)
    assert after["training step, the same without fixed budgets"] == before
    assert after["training step, fastest against fastest, geometric mean"] < 0.1 * before


def test_a_case_that_only_the_peer_reaches_is_named(content):
    assert solver_tables.unmatched(content) == "Reached by torchdeq alone: forward conv to 1e-6."


def test_a_step_that_holds_more_is_named(content):
    assert "dense256, default: 3.0 times" in solver_tables.peaks(content)
    content["steps"][0]["peak_bytes"] = 10
    assert solver_tables.peaks(content).startswith("No training step")


def test_the_report_is_made_of_tables_of_even_lines(content):
    report = solver_tables.report(content)
    assert report[0] == "the rule" and any("0.50 of the 100" in part for part in report)
    for part in report:
        lines = [line for line in part.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1


def test_the_figure_is_well_formed_and_says_its_numbers(content):
    tree = ElementTree.fromstring(chart.chart(content))
    space = "{http://www.w3.org/2000/svg}"
    words = [text.text for text in tree.iter(f"{space}text")]
    assert {"dense256", "hard", "0.33", "0.10", "1.25"} <= set(words) and "conv" not in words
    assert "dense256 0.33, default 0.67" in tree.find(f"{space}desc").text
    box = float(tree.get("width"))
    for bar in tree.iter(f"{space}rect"):
        assert float(bar.get("x")) >= 0 and float(bar.get("x")) + float(bar.get("width")) <= box
