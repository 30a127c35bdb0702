"""The VICReg task: it learns, says when it collapses, resumes to the bit, and shows what it found."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from poise.configs.base import SolverConfig
from poise.configs.errors import ConfigError
from poise.configs.samples import SamplesConfig
from poise.configs.vicreg import EncoderConfig, LossConfig, OtherConfig, ProbeConfig, VICRegConfig, ViewsConfig
from poise.objectives import BarlowTwinsLoss, VICRegLoss
from poise.tasks.optimization import scaled_to_batch
from poise.tasks.run_folder import RunFolder
from poise.tasks.training import train
from poise.tasks.vicreg import CollapseWarning, VICRegTask

DATA = Path(os.environ.get("POISE_DATA") or Path(__file__).parents[3] / "shared" / "data")


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


def test_a_resumed_run_calls_a_collapse_at_its_own_step(tmp_path):
    settings = replace(config(20, loss=LossConfig(variance=0.0)), look_every_n_steps=100)
    train(VICRegTask, settings, RunFolder(tmp_path))
    longer = replace(settings, look_every_n_steps=60, trainer=replace(settings.trainer, max_steps=60))
    with pytest.warns(CollapseWarning, match="after 60 steps, collapse to a point"):
        train(VICRegTask, longer, RunFolder(tmp_path), resume=True)


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
        sum(p.numel() for p in VICRegTask.create(config(1, model=EncoderConfig(kind=kind))).model.encoder.parameters())
        for kind in ("dense", "deq")
    ]
    assert abs(sizes[0] - sizes[1]) <= 0.01 * sizes[0]


def test_an_epoch_is_a_permutation_shared_by_processes():
    task = VICRegTask.create(
        replace(config(1), data=SamplesConfig(batch_size=200), views=ViewsConfig(size=8, gain=0.0, noise=0.0))
    )
    batches = [task.training_batch(index, rank, 2)[0] for index in range(3) for rank in range(2)]
    seen = torch.cat(batches).flatten(1)
    assert len(seen) == 1200 and len(seen.unique(dim=0)) >= 1190  # a few digits may be alike
    again = task.training_batch(1, 1, 2)
    assert all(torch.equal(a, b) for a, b in zip(again, task.training_batch(1, 1, 2), strict=True))
    later = torch.cat([task.training_batch(index, rank, 2)[0] for index in range(3, 6) for rank in range(2)])
    assert not torch.equal(later.flatten(1), seen)


def test_the_two_views_are_different_views():
    first, second, _ = VICRegTask.create(config(1)).training_batch(0)
    assert first.shape == second.shape == (256, 1, 12, 12) and not torch.equal(first, second)


def test_settings_reach_the_loss():
    task = VICRegTask.create(
        config(1, loss=LossConfig(convention="paper", invariance=2.0, variance=3.0, covariance=4.0))
    )
    assert task.loss == VICRegLoss("paper", 2.0, 3.0, 4.0)
    assert VICRegTask.create(config(1, loss=LossConfig(name="barlow", barlow_weight=0.1))).loss == BarlowTwinsLoss(0.1)


SMALL = {"width": 8, "features": None, "stem": (8,), "expander": (12,)}


@pytest.mark.parametrize(("kind", "features"), [("conv", 8), ("deq-conv", 8), ("resnet", 64)])
def test_encoders_of_pictures_train(tmp_path, kind, features):
    # Nothing makes a convolutional cell contract before it is trained: few samples are asked for much.
    settings = replace(
        config(2, model=EncoderConfig(kind=kind, **SMALL)), eval_solver=SolverConfig(rtol=0.1, max_steps=100)
    )
    summary = train(VICRegTask, settings, RunFolder(tmp_path))
    task = VICRegTask.open(settings, RunFolder(tmp_path))
    assert summary["model"] == kind and task.features("test").inputs.shape == (1000, features)


@pytest.mark.parametrize("other", ["separate", "deq"])
@pytest.mark.parametrize("shared_expander", [False, True])
def test_two_encoders_are_probed_apart(tmp_path, other, shared_expander):
    settings = replace(
        config(3, model=EncoderConfig(width=32, features=16, expander=(24,))),
        other=OtherConfig(kind=other, shared_expander=shared_expander),
    )
    summary = train(VICRegTask, settings, RunFolder(tmp_path))
    task = VICRegTask.open(settings, RunFolder(tmp_path))
    first, second = (task.features("test", branch).inputs for branch in (0, 1))
    assert first.shape == second.shape and not torch.allclose(first, second)
    assert 0 < summary["val_probe_accuracy_2"] <= 1
    assert (task.model.branch(0)[1] is task.model.branch(1)[1]) == shared_expander


def test_measures_name_their_few_labels_and_fine_tuning_beside_scratch(tmp_path):
    settings = replace(config(30), probe=ProbeConfig(few=(2, 10), draws=2, fine_tune=(5,), fine_tune_steps=20))
    train(VICRegTask, settings, RunFolder(tmp_path))
    task = VICRegTask.open(settings, RunFolder(tmp_path))
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    found = task.assess()
    assert set(found) == {"probe_2_labels", "probe_10_labels", "fine_tuned_5_labels", "from_scratch_5_labels"}
    assert found["probe_10_labels"] > found["probe_2_labels"] > 0.15 and found["fine_tuned_5_labels"] > 0.3
    assert all(torch.equal(value, before[name]) for name, value in task.model.state_dict().items())
    assert task.assess() == found  # nothing is drawn from a hidden generator


def test_the_online_probe_moves_no_weight(tmp_path):
    runs = []
    for labels in (True, False):
        task = VICRegTask.create(config(1))
        x1, x2, y = task.training_batch(0)
        loss, measures = task.training_loss((x1, x2, y if labels else torch.zeros_like(y)))
        loss.backward()
        runs.append([p.grad.clone() for p in task.model.parameters()])
        assert callable(measures["online_probe_accuracy"])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    assert not any(True for _ in task.online.parameters())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"data": SamplesConfig(batch_size=1298)}, "data.batch_size is 1298, and there are 1,297 samples"),
        ({"views": ViewsConfig(size=7)}, "views.name placed does not fit the samples: Placed.side=7. is smaller"),
        ({"views": ViewsConfig(name="cifar", size=8)}, "views.name cifar does not fit the samples: .*3 channels"),
        ({"probe": ProbeConfig(few=(10, 500))}, "probe.few asks for 500 labels a class, and the smallest class"),
        ({"model": EncoderConfig(features=None)}, "model.features is null, and a dense encoder ends in a linear layer"),
        (
            {
                "model": EncoderConfig(kind="resnet", **SMALL),
                "other": OtherConfig(kind="conv", shared_expander=True),
            },
            "the encoders return 64 and 8 features",
        ),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        VICRegTask.create(replace(config(1), **settings))


def test_the_learning_rate_grows_with_the_batch():
    default = VICRegConfig()
    scaled = replace(default.optimizer, lr_scaling="linear", lr=0.2)
    assert scaled_to_batch(scaled, 1024).lr == pytest.approx(0.8)
    assert scaled_to_batch(replace(scaled, lr_scaling="none"), 1024).lr == 0.2


@pytest.mark.skipif(not (DATA / "mfeat.npz").is_file(), reason="needs mfeat.npz of the data folder")
def test_two_kinds_of_input(tmp_path, monkeypatch):
    monkeypatch.setenv("POISE_DATA", str(DATA))
    settings = replace(
        config(150),
        data=SamplesConfig(path="mfeat:pix,kar"),
        views=ViewsConfig(name="noise", gain=0.0, noise=0.1, masking=0.1),
        other=OtherConfig(kind="separate"),
    )
    summary = train(VICRegTask, settings, RunFolder(tmp_path))
    assert summary["val_probe_accuracy"] > 0.93 and summary["val_probe_accuracy_2"] > 0.93
    with pytest.raises(ConfigError, match="other.kind is shared, and the samples have two kinds of input"):
        VICRegTask.create(replace(settings, other=OtherConfig()))
