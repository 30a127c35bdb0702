"""The VICReg task: it learns, says when it collapses, resumes to the bit, and shows what it found."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from poise.configs.base import SolverConfig
from poise.configs.vicreg import DigitsConfig, EncoderConfig, LossConfig, VICRegConfig
from poise.objectives import BarlowTwinsLoss, VICRegLoss
from poise.tasks.run_folder import RunFolder
from poise.tasks.training import train
from poise.tasks.vicreg import CollapseWarning, VICRegTask


def config(steps, *, model=EncoderConfig(), loss=LossConfig(), **trainer):
    default = VICRegConfig()
    settings = {"accelerator": "cpu", "devices": 1, "threads": 1, "val_check_interval": 1000, **trainer}
    return replace(
        default,
        model=model,
        loss=loss,
        solver=SolverConfig(name="anderson", rtol=1e-2, max_steps=50),
        trainer=replace(default.trainer, max_steps=steps, **settings),
    )


def test_features_get_far_better_than_random_ones(tmp_path):
    summary = train(VICRegTask, config(100), RunFolder(tmp_path))
    analysis = RunFolder(tmp_path).read_json(RunFolder(tmp_path).analysis)
    assert summary["val_probe_accuracy"] > 0.8 > 0.65 > analysis["random_probe_accuracy"] > 0.45
    assert summary["val_few_accuracy"] > 0.6 and summary["val_knn_accuracy"] > 0.7
    assert analysis["finding"] is None
    page = (tmp_path / "report.html").read_text()
    for words in ("Probe accuracy", "Spectrum", "Test features on two axes", "no sign of a collapse", "linear probe"):
        assert words in page


def test_without_the_variance_term_the_collapse_is_called_by_name(tmp_path):
    with pytest.warns(CollapseWarning, match="after 50 steps, collapse to a point: .* look at the variance term"):
        train(VICRegTask, config(60, loss=LossConfig(variance=0.0)), RunFolder(tmp_path))
    folder = RunFolder(tmp_path)
    assert folder.read_json(folder.analysis)["finding"].startswith("collapse to a point")


def test_without_the_covariance_term_the_loss_of_rank_is(tmp_path):
    with pytest.warns(CollapseWarning, match="collapse of rank: .* look at the covariance term"):
        train(VICRegTask, config(110, loss=LossConfig(covariance=0.0)), RunFolder(tmp_path))


def test_a_resumed_run_ends_at_the_same_bits(tmp_path):
    settings = config(6, checkpoint_every_n_steps=3)
    whole, resumed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "resumed")
    train(VICRegTask, settings, whole)
    shutil.copytree(whole.path, resumed.path)
    for path in resumed.path.rglob("*00006*"):
        path.unlink()
    (resumed.path / "model.safetensors").unlink()
    train(VICRegTask, settings, resumed, resume=True)
    expected, found = (load_file(folder.path / "model.safetensors") for folder in (whole, resumed))
    assert expected.keys() == found.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", ["dense", "deq"])
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("name", ["vicreg", "barlow"])
def test_every_choice_trains(tmp_path, kind, batch_norm, name):
    model = EncoderConfig(kind=kind, width=32, features=16, expander=(24, 20), batch_norm=batch_norm)
    summary = train(VICRegTask, config(3, model=model, loss=LossConfig(name=name)), RunFolder(tmp_path))
    assert summary["model"] == kind and summary["loss"] == name
    assert bool(summary["statuses"]) == (kind == "deq")


def test_encoders_of_one_size():
    sizes = [
        sum(p.numel() for p in VICRegTask(config(1, model=EncoderConfig(kind=kind))).model.encoder.parameters())
        for kind in ("dense", "deq")
    ]
    assert abs(sizes[0] - sizes[1]) <= 0.01 * sizes[0]


def test_an_epoch_is_a_permutation_shared_by_processes():
    task = VICRegTask(replace(config(1), data=DigitsConfig(side=8, gain=0.0, noise=0.0, batch_size=200)))
    batches = [task.training_batch(index, rank, 2)[0] for index in range(3) for rank in range(2)]
    seen = torch.cat(batches).flatten(1)
    assert len(seen) == 1200 and len(seen.unique(dim=0)) >= 1190  # a few digits may be alike
    again = task.training_batch(1, 1, 2)
    assert all(torch.equal(a, b) for a, b in zip(again, task.training_batch(1, 1, 2), strict=True))
    later = torch.cat([task.training_batch(index, rank, 2)[0] for index in range(3, 6) for rank in range(2)])
    assert not torch.equal(later.flatten(1), seen)


def test_the_two_views_are_different_views():
    first, second = VICRegTask(config(1)).training_batch(0)
    assert first.shape == second.shape == (256, 1, 12, 12) and not torch.equal(first, second)


def test_settings_reach_the_loss():
    task = VICRegTask(config(1, loss=LossConfig(convention="paper", invariance=2.0, variance=3.0, covariance=4.0)))
    assert task.loss == VICRegLoss("paper", 2.0, 3.0, 4.0)
    assert VICRegTask(config(1, loss=LossConfig(name="barlow", barlow_weight=0.1))).loss == BarlowTwinsLoss(0.1)
