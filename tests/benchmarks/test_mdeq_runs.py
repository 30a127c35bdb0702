"""The runs of multiscale DEQs as a result: which are kept, and what the table says of them."""

import pytest

from benchmarks import mdeq_runs


def run(recipe, seed, value, **more):
    return {
        "recipe": recipe,
        "seed": seed,
        "parameters": 1000,
        "epochs": 12.0,
        "train_cpu_seconds": 60.0,
        "val_accuracy": value,
        "budgets": {},
        **more,
    }


def test_seeds_are_averaged_and_the_test_goes_before_the_validation():
    runs = [run("cifar10-resnet", seed, value, test_accuracy=value + 0.1) for seed, value in enumerate((0.5, 0.6, 0.7))]
    table = mdeq_runs.table({"sets": {name: runs if name == "cifar10" else [] for name in mdeq_runs.SETS}})
    (line,) = table.splitlines()[2:]
    assert "0.700 (0.600 to 0.800)" in line and "ResNet-18" in line and line.split("|")[-2].strip() == "60"


def test_evaluations_that_were_stopped_stand_beside():
    budgets = {str(budget): {"val_accuracy": value} for budget, value in ((6, 0.71), (12, 0.72))}
    runs = [run("cifar10-deq", 0, 0.7, budgets=budgets), run("cifar10-deq", 1, 0.8)]
    table = mdeq_runs.table({"sets": {"cifar10": runs, "camvid": [], "mnist": [], "scenes": []}})
    assert "0.710 and 0.720" in table


@pytest.mark.parametrize("name", mdeq_runs.SETS)
def test_a_set_that_is_not_asked_for_is_kept(name, tmp_path):
    known = {other: [run("x", 0, 0.1)] for other in mdeq_runs.SETS}
    found = mdeq_runs.measure(tmp_path, [], known)
    assert found["sets"][name] == known[name]
