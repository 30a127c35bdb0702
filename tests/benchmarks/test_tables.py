import json
import re
from pathlib import Path

import pytest

from benchmarks import evaluations, results, tables

ROOT = Path(__file__).parents[2]
MEASURED = sorted(results.FOLDER.glob("*.json"))


def test_a_table_takes_the_place_of_what_stands_between_its_markers():
    text = "a\n<!-- table: rows -->\nold\n<!-- end -->\nb\n<!-- table: memory -->\n<!-- end -->\n"
    fresh = tables.rewrite(text, make=lambda name: f"| {name} |")
    assert fresh == (
        "a\n<!-- table: rows -->\n\n| rows |\n\n<!-- end -->\nb\n<!-- table: memory -->\n\n| memory |\n\n<!-- end -->\n"
    )
    assert tables.rewrite(fresh, make=lambda name: f"| {name} |") == fresh


@pytest.mark.parametrize("text", ["<!-- table: rows -->\n", "<!-- table: no name! -->\n<!-- end -->\n"])
def test_a_marker_that_is_not_closed_or_named_is_refused(text):
    with pytest.raises(LookupError, match="end each with"):
        tables.rewrite(text)


def test_an_unknown_table_is_refused_by_name():
    with pytest.raises(LookupError, match="there is no table 'speed'"):
        tables.generate("speed")


def test_a_table_that_was_not_measured_says_what_to_run(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    with pytest.raises(LookupError, match=r"python -m benchmarks\.rows"):
        tables.generate("rows")


@pytest.mark.parametrize("name", ["README.md", "docs/measurements.md"])
def test_documents_quote_the_tables_that_the_results_make(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert tables.rewrite(text) == text, f"run python -m benchmarks.tables --write {name}"


@pytest.mark.parametrize("name", ["evaluations", "rows", "memory"])
def test_every_committed_result_makes_its_table(name):
    table = tables.generate(name).split("\n\n")[0].splitlines()
    assert len(table) > 3
    assert len({line.count("|") for line in table}) == 1


def test_the_committed_counts_need_no_more_than_torchdeq():
    assert evaluations.verdict(results.read("evaluations")).startswith("Nowhere")


@pytest.mark.parametrize("path", MEASURED, ids=lambda path: path.name)
def test_a_committed_result_says_where_it_was_measured_and_names_no_place(path):
    text = path.read_text(encoding="utf-8")
    assert set(json.loads(text)["environment"]) == {"cpu", "threads", "python", "torch", "torchdeq"}
    assert not re.search(r"/(home|root|work|tmp|usr|opt|Users)\b", text)


def test_a_result_is_written_whole_with_its_environment(tmp_path):
    path = tmp_path / "new" / "thing.json"
    results.write(path, {"value": 1})
    assert json.loads(path.read_text())["value"] == 1
    with pytest.raises(TypeError):
        results.write(path, {"value": object()})
    assert json.loads(path.read_text())["value"] == 1
    assert [entry.name for entry in path.parent.iterdir()] == ["thing.json"]


def test_markdown_pads_and_puts_numbers_to_the_right():
    assert results.markdown(["name", "count"], [["a", "1"], ["longer", "12"]], numbers=[1]) == (
        "| name   | count |\n| ------ | ----: |\n| a      |     1 |\n| longer |    12 |"
    )
