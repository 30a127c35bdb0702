"""Runs that differ in their seed alone stand in one entry, told by the worst; signs are those of wrong answers."""

import json

import pytest

from benchmarks import reasoners
from benchmarks.runs import counted
from poise.cli.main import main


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reasoners")
    shared = "--puzzle prefix --max_steps 2 --data.pool 40 --data.test_instances 2 --data.test_sizes [8]"
    kinds = {"deq-0": "--seed 0", "deq-1": "--seed 1", "explicit": "--model.kind explicit --model.layers 2"}
    for name, settings in kinds.items():
        assert main(["train", "reason", "--out", str(folder / name), *f"{shared} {settings}".split()]) == 0
    return [folder / name for name in kinds]


def test_seeds_stand_together_and_peers_beside(runs, monkeypatch):
    monkeypatch.setitem(reasoners.SIZES, "prefix", (reasoners.Group((8, 12)), reasoners.Group((16,), 0.5, 1)))
    content = reasoners.measure([(run, 2) for run in runs], instances=4)
    equilibrium, explicit = content["kinds"].values()
    assert equilibrium["seeds"] == [0, 1] and explicit["seeds"] == [0]
    alone = [json.loads((run / "fresh-4-2.json").read_text())["sizes"] for run in runs]
    for place, size in enumerate(equilibrium["sizes"]):
        assert size["solved"] == min(one[place]["solved"] for one in alone[:2])
        assert size["evaluations"] == max(one[place]["evaluations"] for one in alone[:2])
    assert [size["name"] for size in explicit["sizes"]] == ["8 bits", "12 bits", "16 bits"]
    # Two puzzles of each of the first group's sizes were solved from several starts.
    assert all(signs["right"] + signs["wrong"] == 2 * 2 for signs in equilibrium["signs"])
    assert len(reasoners.table(content).splitlines()) == 2 + 3 + 3


def test_the_worst_seed_is_told_where_two_were_wrong_often_enough():
    def signs(wrong, value):
        return {"right": 90, "wrong": wrong, "auroc": {"agreement of starts": value}}

    kind = {"network": "equilibrium", "puzzle": "maze"}
    told = reasoners.verdict({"kinds": {"": {**kind, "signs": [signs(30, 0.95), signs(12, 0.91), signs(1, 0.2)]}}})
    assert "43 of 313 answers wrong" in told and "of the worst seed 0.910" in told
    few = reasoners.verdict({"kinds": {"": {**kind, "signs": [signs(30, 0.95), signs(0, None)]}}})
    assert "30 of 210 answers wrong" in few and "worst" not in few


def test_a_run_may_say_a_number(tmp_path):
    assert counted(f"{tmp_path}=500") == (tmp_path, 500)
    assert counted(str(tmp_path)) == (tmp_path, None)
    assert counted("a=b") == (reasoners.Path("a=b"), None)
