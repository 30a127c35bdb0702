"""A run that starts from another one's stem and trunk."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from poise.configs.errors import ConfigError
from poise.tasks.classify import ClassifyTask
from poise.tasks.multitask import MultitaskTask
from poise.tasks.run_folder import RunFolder
from poise.tasks.segment import SegmentTask
from poise.tasks.training import train
from tests.tasks.recognition_runs import classify, multitask, segment, write_classes, write_scenes

HEADS = ("classifier.", "segmenter.")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    return write_classes(folder / "classes"), write_scenes(folder / "scenes", train=4, test=2, size=(16, 16))


def settings(sets, steps=2, **more):
    """Of a classification run whose trunk fits a segmentation run."""
    model = {"downsamplings": 1, **more.pop("model", {})}
    run = {"checkpoint_every_n_steps": 1}
    return classify(steps, path=sets[0], batch_size=4, model=model, run=run, **more)


@pytest.fixture(scope="module")
def classified(sets, tmp_path_factory):
    """The folder of a short classification run; tests only read it."""
    folder = RunFolder(tmp_path_factory.mktemp("run") / "classified")
    train(ClassifyTask, settings(sets), folder)
    return folder


def assert_trunk(task, saved):
    """Stem, trunk and running statistics are copies, heads are what the seed makes without another run."""
    state = task.model.state_dict()
    trunk = {name for name in state if not name.startswith(HEADS)}
    assert trunk == {name for name in saved if not name.startswith(HEADS)}
    assert any("running_mean" in name for name in trunk) and any(name.startswith("equilibrium.") for name in trunk)
    assert all(torch.equal(state[name], saved[name]) for name in trunk)


def assert_fresh_heads(task, fresh):
    found, expected = task.model.state_dict(), fresh.model.state_dict()
    heads = [name for name in found if name.startswith(HEADS)]
    assert heads and all(torch.equal(found[name], expected[name]) for name in heads)
    assert not torch.equal(found["stem.0.weight"], expected["stem.0.weight"])


def test_segmentation_from_classification(sets, classified):
    started = SegmentTask.create(segment(sets[1], init_from=str(classified.path)))
    assert_trunk(started, load_file(classified.weights))
    assert_fresh_heads(started, SegmentTask.create(segment(sets[1])))


def test_both_at_once_from_segmentation(tmp_path):
    folder = RunFolder(tmp_path / "run")
    config = segment("scenes", seed=1, model={"downsamplings": 2})
    task = SegmentTask.create(config)
    # A run that was stopped after its first step: what it is, and a checkpoint's weights.
    folder.write_config("segment", {})
    folder.checkpoints.mkdir()
    state = {f"model.{name}": value for name, value in task.model.state_dict().items()}
    torch.save({"state_dict": state}, folder.checkpoints / "step-00000001.ckpt")
    with pytest.warns(UserWarning, match="the run is not finished; these are its weights after step 1."):
        started = MultitaskTask.create(multitask(init_from=str(folder.path)))
    assert_trunk(started, task.model.state_dict())
    assert started.identity()["init_from"] == str(folder.path)


def test_a_head_of_the_same_shape_is_fresh_as_well(sets, classified, tmp_path):
    assert_fresh_heads(
        ClassifyTask.create(settings(sets, init_from=str(classified.path))), ClassifyTask.create(settings(sets))
    )
    folder, config = RunFolder(tmp_path / "run"), settings(sets, 1, model={"kind": "resnet", "width": 4})
    train(ClassifyTask, config, folder)
    model = {"kind": "resnet", "width": 4}
    started = ClassifyTask.create(settings(sets, model=model, init_from=str(folder.path))).model.state_dict()
    fresh, saved = ClassifyTask.create(settings(sets, model=model)).model.state_dict(), load_file(folder.weights)
    for name, value in started.items():
        assert torch.equal(value, (fresh if name.startswith("head.") else saved)[name]), name


def test_a_resumed_run_does_not_need_the_other(sets, classified, tmp_path):
    other, folder = tmp_path / "other", RunFolder(tmp_path / "run")
    shutil.copytree(classified.path, other)
    config = settings(sets, init_from=str(other), seed=1)
    train(ClassifyTask, config, folder)
    whole = load_file(folder.weights)
    assert f"It began from the trunk of <code>{other}</code>" in folder.report.read_text()
    shutil.rmtree(other)
    folder.weights.unlink()
    (folder.checkpoints / "step-00000002.ckpt").unlink()
    train(ClassifyTask, config, folder, resume=True)
    again = load_file(folder.weights)
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    ClassifyTask.open(config, folder)


def test_half_a_run_gives_the_weights_of_its_checkpoint(sets, classified, tmp_path):
    half = RunFolder(tmp_path / "half")
    shutil.copytree(classified.path, half.path)
    half.weights.unlink()
    (half.checkpoints / "step-00000002.ckpt").unlink()
    with pytest.warns(UserWarning, match="the run is not finished; these are its weights after step 1."):
        started = SegmentTask.create(segment(sets[1], init_from=str(half.path)))
    saved = torch.load(half.checkpoints / "step-00000001.ckpt", weights_only=True)["state_dict"]
    assert_trunk(started, {name.removeprefix("model."): value for name, value in saved.items()})
    shutil.rmtree(half.checkpoints)
    with pytest.raises(ConfigError, match="init_from names no run to start from: .*holds no weights yet"):
        SegmentTask.create(segment(sets[1], init_from=str(half.path)))


def language_run(folder):
    folder.mkdir()
    RunFolder(folder).write_config("language", {})
    return folder


@pytest.mark.parametrize(
    ("other", "model", "sentence"),
    [
        (lambda path: path / "none", {}, "init_from names no run to start from: there is no run in .*none: it is no"),
        (lambda path: path, {}, "init_from names no run to start from: .*holds no config.yaml"),
        (
            lambda path: language_run(path / "text"),
            {},
            "init_from .*text is a run of language; name one of classify, segment, multitask",
        ),
        (None, {"channels": (8, 16)}, "does not fit: equilibrium.*is 8x.* there and 16x.* here; give model and data"),
        (None, {"channels": (8,)}, "does not fit: .* there and missing here; give model and data the shapes"),
        (None, {"kind": "explicit"}, "does not fit: .* is missing there and .* here; give model and data the shapes"),
        (None, {"weight_norm": False}, "does not fit: .* is missing there"),
    ],
)
def test_what_does_not_fit_is_one_sentence(sets, classified, tmp_path, other, model, sentence):
    run = classified.path if other is None else other(tmp_path)
    with pytest.raises(ConfigError, match=sentence) as caught:
        SegmentTask.create(segment(sets[1], model=model, init_from=str(run)))
    assert "\n" not in str(caught.value)


def test_pictures_of_other_channels_do_not_fit(classified):
    with pytest.raises(ConfigError, match="does not fit: stem.0.weight is 8x3x3x3 there and 8x1x3x3 here"):
        ClassifyTask.create(classify(model={"downsamplings": 1}, init_from=str(classified.path)))
