"""Shallow training of the same weights: which steps unroll the cell, with which gradient, and what a run says of it."""

import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from poise.configs.base import PretrainingConfig, SolverConfig
from poise.tasks.classify import ClassifyTask
from poise.tasks.run_folder import RunFolder
from poise.tasks.training import train
from tests.tasks.recognition_runs import classify, means, step, write_classes


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp("set") / "classes", train=12)


def made(pictures, **more):
    return ClassifyTask.create(classify(1, path=pictures, batch_size=4, **more))


def test_the_first_steps_unroll_the_cell_and_no_others(pictures):
    task = made(pictures, pretraining=PretrainingConfig(steps=3, layers=2))
    before = means(task)
    assert [step(task, number)[2] for number in range(5)] == [2.0, 2.0, 2.0, 3.0, 3.0]
    assert means(task) == before


@pytest.mark.parametrize("looked_at", [1, 100])  # steps from one look at what the layers counted to the next
def test_shallow_steps_are_told_apart_from_those_that_solve(tmp_path, pictures, looked_at, capsys):
    tested = SolverConfig(rtol=1.0, max_steps=7)  # passes at once, so that a spent budget would be of a shallow step
    run = {"checkpoint_every_n_steps": looked_at, "val_check_interval": looked_at}
    config = classify(
        5, path=pictures, batch_size=4, run=run, solver=tested, pretraining=PretrainingConfig(steps=2, layers=6)
    )
    config = replace(config, trainer=replace(config.trainer, log_every_n_steps=looked_at))
    folder = RunFolder(tmp_path / "run")
    summary = train(ClassifyTask, config, folder)
    assert summary["pretraining_steps"] == 2 and summary["statuses"] == {"CONVERGED": 3 * 4}
    assert summary["mean_forward_evaluations"] < 6
    assert "5 steps in" in (shown := capsys.readouterr().out) and ", the first 2 shallow and in no count" in shown
    assert "The first 2 steps unrolled the cell a few times, as asked, and are not counted" in folder.report.read_text()


def test_a_run_without_shallow_steps_counts_them_all(tmp_path, pictures, capsys):
    for model, statuses in (({}, {"BUDGET": 12}), ({"kind": "explicit"}, {})):
        pretraining = PretrainingConfig(steps=3 if model else 0)
        config = classify(3, path=pictures, batch_size=4, model=model, pretraining=pretraining)
        folder = RunFolder(tmp_path / str(len(model)))
        summary = train(ClassifyTask, config, folder)
        assert summary["pretraining_steps"] == 0 and summary["statuses"] == statuses
        assert "shallow and in" not in capsys.readouterr().out and "unrolled the cell" not in folder.report.read_text()


def test_a_shallow_step_has_the_gradient_of_layers_with_one_weight(pictures):
    task = made(pictures, pretraining=PretrainingConfig(steps=1, layers=3))
    loss, _, _ = step(task, 0)
    loss.backward()
    found = {name: weight.grad.clone() for name, weight in task.model.named_parameters()}
    task.zero_grad()
    x, labels, _ = task.training_batch(0, 0, 2)
    cell = task.model.equilibrium.cell
    context = cell.inject(task.model.stem(x))
    z = cell.initial_state(context)
    for _ in range(3):
        z = cell(z, context)
    F.cross_entropy(task.model.classifier(z), labels).backward()
    for name, weight in task.model.named_parameters():
        assert torch.allclose(found[name], weight.grad, rtol=1e-3, atol=1e-6), name


@pytest.mark.parametrize(("shallow", "said"), [(2, True), (5, True), (1, False)])
def test_a_run_that_never_solves_says_so(tmp_path, pictures, shallow, said):
    config = classify(2, path=pictures, batch_size=4, pretraining=PretrainingConfig(steps=shallow))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(ClassifyTask, config, RunFolder(tmp_path / "run"))
    texts = [str(warning.message) for warning in caught]
    expected = f"pretraining.steps is {shallow} and trainer.max_steps 2, so that no step solves for an equilibrium"
    assert any(expected in text for text in texts) == said
