"""Pictures of every shape and kind, and those that cannot be had: documented behaviour, or one sentence."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from poise.configs.base import RegularizationConfig
from poise.configs.classify import ClassifyViewsConfig
from poise.configs.errors import ConfigError
from poise.configs.multitask import MultitaskLossConfig
from poise.configs.samples import SamplesConfig
from poise.configs.segment import SegmentViewsConfig
from poise.data import DataError
from poise.tasks.classify import ClassifyTask
from poise.tasks.errors import RunError
from poise.tasks.multitask import MultitaskTask
from poise.tasks.run_folder import RunFolder
from poise.tasks.segment import SegmentTask
from poise.tasks.training import train
from poise.tasks.weights import save_weights
from tests.tasks.recognition_runs import Standing, classify, multitask, segment, write_classes, write_png, write_scenes

DATA = Path(os.environ.get("POISE_DATA") or Path(__file__).parents[3] / "shared" / "data")


def assert_sentence(error, *parts):
    message = str(error)
    assert "\n" not in message and message.endswith(".") and not re.search(r"[.!?] +[A-Z]", message), message
    for part in parts:
        assert part in message, message


# Shapes and kinds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("downsamplings", [0, 1, 2])
def test_sides_that_no_stride_divides_train_and_segment_whole(tmp_path, downsamplings):
    scenes = write_scenes(tmp_path / "set", train=2, test=1, size=(33, 45))
    model = {"downsamplings": downsamplings, "channels": (8, 8, 8)}
    task = SegmentTask.create(segment(scenes, model=model, batch_size=2))
    batch = task.training_batch(0)
    assert batch[0].shape == (2, 3, 33, 45) and batch[2].shape == (2, 33, 45)
    loss, _ = task.training_loss(batch)
    loss.backward()
    assert all(weight.grad.isfinite().all() for weight in task.model.parameters())
    task.eval()
    with torch.no_grad():
        assert task.predict_whole(task.evaluation_batches("valid")[0][0]).pixels.shape == (1, 3, 33, 45)


def test_grey_pictures_of_a_folder_are_repeated_in_colour_and_transparency_is_left_out(tmp_path):
    plain = write_classes(tmp_path / "rgb")
    for path in sorted(plain.rglob("*.png")):
        rgb = np.array(Image.open(path))
        alpha = np.full((*rgb.shape[:2], 1), 7, np.uint8)
        write_png(tmp_path / "rgba" / path.relative_to(plain), np.concatenate([rgb, alpha], axis=2))
    first, second = (
        ClassifyTask.create(classify(path=tmp_path / name, batch_size=4)).training_batch(0) for name in ("rgb", "rgba")
    )
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    grey = ClassifyTask.create(classify(path=write_classes(tmp_path / "grey", channels=1), batch_size=4))
    x = grey.training_batch(0)[0]
    assert x.shape == (4, 3, 8, 8) and torch.allclose(x[:, 0], x[:, 2], atol=1e-5)


def test_pictures_of_one_channel_by_name_stay_so():
    task = ClassifyTask.create(classify())
    assert task.training_batch(0)[0].shape == (32, 1, 8, 8) and task.model.stem[0].weight.shape[1] == 1


def test_pictures_of_one_colour_train_and_are_shown(tmp_path):
    for part in ("train", "test"):
        for place, name in enumerate(("black", "white")):
            for number in range(2):
                array = np.full((8, 8, 3), 255 * place, np.uint8)
                write_png(tmp_path / "set" / part / name / f"{number}.png", array)
    folder = RunFolder(tmp_path / "run")
    summary = train(ClassifyTask, classify(1, path=tmp_path / "set", batch_size=2), folder)
    assert np.isfinite(summary["val_loss"]) and "Pictures and their class" in folder.report.read_text()


# Sets that are none ---------------------------------------------------------------------------------------------------


def emptied(folder):
    write_classes(folder)
    for path in (folder / "train" / "red").iterdir():
        path.unlink()


def without_a_part(folder):
    write_classes(folder)
    shutil.rmtree(folder / "test")


def of_two_sizes(folder):
    write_classes(folder)
    write_png(folder / "train" / "red" / "000.png", np.zeros((8, 9, 3), np.uint8))


def of_other_classes(folder):
    write_classes(folder)
    (folder / "test" / "red").rename(folder / "test" / "green")


def with_a_text(folder):
    write_classes(folder)
    (folder / "train" / "red" / "notes.txt").write_text("no picture")


def damaged(folder):
    write_classes(folder)
    path = folder / "train" / "blue" / "000.png"
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (lambda folder: folder.mkdir(), ("cannot read", "/train'", "check the path")),
        (emptied, ("train/red", "holds no picture", "add some")),
        (without_a_part, ("cannot read", "/test'", "check the path")),
        (of_two_sizes, ("red/000.png", "is 8x9, not 8x8", "all must have one size")),
        (of_other_classes, ("'green'", "'red'")),
        (with_a_text, ("notes.txt", "is no picture", "remove it")),
        (damaged, ("blue/000.png", "cannot be decoded", "fetch it anew")),
    ],
)
def test_folders_that_are_no_set_are_refused_before_a_run_begins(tmp_path, spoil, parts):
    spoil(tmp_path / "set")
    with pytest.raises(DataError) as caught:
        train(ClassifyTask, classify(path=tmp_path / "set", batch_size=4), RunFolder(tmp_path / "run"))
    assert_sentence(caught.value, *parts)
    assert not (tmp_path / "run").exists()


def test_a_label_outside_the_classes_is_told_with_its_place(tmp_path):
    scenes = write_scenes(tmp_path / "set", train=4, test=1, size=(16, 16))
    labels = np.zeros((16, 16), np.uint8)
    labels[2, 3] = 77
    write_png(scenes / "trainannot" / "02.png", labels)
    with pytest.raises(DataError) as caught:
        SegmentTask.create(segment(scenes, batch_size=4))
    assert_sentence(caught.value, "02.png", "the value 77 at (2, 3)", "class table")


@pytest.mark.parametrize(
    ("task", "config", "parts"),
    [
        (
            SegmentTask,
            lambda sets: segment(sets / "classes"),
            ("has a class each and none at each pixel", "run poise train classify, or pass scenes or camvid"),
        ),
        (SegmentTask, lambda sets: segment("digits"), ("'digits' has a class each and none at each pixel",)),
        (
            MultitaskTask,
            lambda sets: multitask(path="digits"),
            ("'digits' has a class each and none at each pixel", "run poise train classify, or pass scenes."),
        ),
        (
            MultitaskTask,
            lambda sets: multitask(path=sets / "scenes", batch_size=4),
            ("has a class at each pixel and none of the whole", "run poise train segment, or pass scenes"),
        ),
        (
            ClassifyTask,
            lambda sets: classify(path=sets / "scenes", batch_size=4),
            ("has a class at each pixel and none of the whole", "run poise train segment, or pass scenes"),
        ),
        (
            ClassifyTask,
            lambda sets: classify(path=sets / "classes", batch_size=13),
            ("data.batch_size is 13, and there are 12 samples to train on", "pass at most as many"),
        ),
        (
            ClassifyTask,
            lambda sets: classify(model={"channels": (8,) * 5}),
            ("pictures of 8x8 have no 5 scales with model.downsamplings 0", "pass fewer model.channels"),
        ),
        (
            ClassifyTask,
            lambda sets: classify(model={"channels": (8,) * 3, "downsamplings": 2}),
            ("pictures of 8x8 have no 3 scales with model.downsamplings 2",),
        ),
        (
            SegmentTask,
            lambda sets: segment(sets / "scenes", views=SegmentViewsConfig(size=(3, 16))),
            ("pictures of 3x16 have no 2 scales with model.downsamplings 1",),
        ),
        (
            ClassifyTask,
            lambda sets: classify(views=ClassifyViewsConfig(normalise="cifar10")),
            ("the views do not fit the pictures of 'digits'", "channels"),
        ),
        (
            ClassifyTask,
            lambda sets: classify(views=ClassifyViewsConfig(colour=0.4)),
            ("the views do not fit the pictures of 'digits'", "channels"),
        ),
    ],
)
def test_settings_that_do_not_fit_the_samples_are_one_sentence(tmp_path, task, config, parts):
    write_classes(tmp_path / "classes")
    write_scenes(tmp_path / "scenes", train=4, test=1, size=(16, 16))
    with pytest.raises(ConfigError) as caught:
        task.create(config(tmp_path))
    assert_sentence(caught.value, *parts)


@pytest.mark.skipif(not (DATA / "mfeat.npz").is_file(), reason="needs mfeat.npz of the data folder")
def test_samples_that_are_no_pictures_are_refused(monkeypatch):
    monkeypatch.setenv("POISE_DATA", str(DATA))
    with pytest.raises(ConfigError) as caught:
        ClassifyTask.create(classify(path="mfeat"))
    assert_sentence(caught.value, "'mfeat' are no pictures", "name pictures")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: classify(model={"channels": (8, 10)}),
            r"channels are \[8, 10\]; pass one or more multiples of",
        ),
        (lambda: classify(model={"channels": ()}), r"channels are \[\]; pass one or more"),
        (lambda: classify(model={"dropout": 1.0}), "dropout is 1.0; it must be in"),
        (lambda: classify(model={"downsamplings": 3}), "downsamplings is 3; pass 0, 1 or 2."),
        (lambda: classify(label_smoothing=1.0), "label_smoothing is 1.0; it must be in"),
        (lambda: ClassifyViewsConfig(scale=(0.5, 0.2)), r"scale is \[0.5, 0.2\]; pass two parts"),
        (lambda: SegmentViewsConfig(scale=(0.5, 2.0)), r"scale is \[0.5, 2.0\] without a size; name the views.size"),
        (lambda: RegularizationConfig(jacobian_frequency=0.0), "jacobian_frequency is 0.0; it must be in"),
        (lambda: RegularizationConfig(jitter=-1), "jitter is -1; it must be at least 0."),
        (lambda: MultitaskLossConfig(0.0, 0.0), "classes and pixels are both 0; let one of them weigh something."),
    ],
)
def test_settings_out_of_range_are_refused_with_the_value(make, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make()


def test_more_processes_than_batches_to_validate_on_are_told(tmp_path):
    task = ClassifyTask.create(classify(path=write_classes(tmp_path / "set"), batch_size=4))
    task.trainer = standing = Standing(world_size=2)
    with pytest.raises(RunError) as caught:
        task.val_dataloader()
    assert_sentence(caught.value, "fewer batches to evaluate (1) than processes (2)", "smaller data.eval_batch_size")
    standing.world_size = 1
    assert len(task.val_dataloader()) == 1


# Runs that are opened again -------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """A run of two classes of pictures in colour that was not trained."""
    config = classify(path=write_classes(tmp_path / "set"), batch_size=4)
    folder = RunFolder(tmp_path / "run")
    task = ClassifyTask.create(config)
    folder.write_config("classify", {})
    task.save_inference(folder)
    save_weights(task.model, folder)
    return config, folder


def test_a_network_is_not_measured_on_a_set_that_it_was_not_made_for(tmp_path, saved):
    config, folder = saved
    other = write_classes(tmp_path / "other", names=("blue", "green", "red"))
    for path, parts in (
        (other, ("has the classes blue, green, red and the network names blue, red", "pass a set like")),
        ("digits", ("the pictures of 'digits' have 1 channels and the network reads 3", "pass a set like")),
    ):
        task = ClassifyTask.open(replace(config, data=SamplesConfig(path=str(path), batch_size=4)), folder)
        with pytest.raises(ConfigError) as caught:
            task.evaluation_batches("valid")
        assert_sentence(caught.value, *parts)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"channels": 3}'])
def test_what_a_run_kept_of_its_samples_is_told_where_it_is_damaged(saved, content):
    config, folder = saved
    folder.samples.write_text(content)
    with pytest.raises(RunError) as caught:
        ClassifyTask.open(config, folder)
    assert_sentence(caught.value, str(folder.samples), "cannot be read; restore it")
