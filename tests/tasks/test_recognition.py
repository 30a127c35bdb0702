"""The tasks on pictures: they learn, measure what they say, resume to the bit, and show what they found."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from poise.configs.base import PretrainingConfig, RegularizationConfig, SolverConfig
from poise.configs.classify import ClassifyViewsConfig
from poise.configs.multitask import MultitaskLossConfig
from poise.configs.recognition import FullResolutionConfig
from poise.configs.samples import SamplesConfig
from poise.configs.segment import SegmentViewsConfig
from poise.data import VOID
from poise.tasks.classify import ClassifyTask
from poise.tasks.evaluation import measure
from poise.tasks.multitask import MultitaskTask
from poise.tasks.plain_batches import Share
from poise.tasks.run_folder import RunFolder
from poise.tasks.segment import SegmentTask
from poise.tasks.training import train
from tests.tasks.recognition_runs import BUDGET, classify, multitask, segment, write_classes, write_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("set") / "scenes")


def trained(task, config, path):
    """Return the folder of a run and its summary."""
    folder = RunFolder(path / "run")
    return folder, train(task, config, folder)


def losses(folder, name):
    return [row[name] for row in folder.read_metrics() if name in row]


def assert_page(folder, *words):
    page = folder.report.read_text()
    for word in words:
        assert word in page, word
    for word in ("Loss", "Validation", "Cost", "Settings", 'class="legend"'):
        assert word in page, word
    return page


EQUILIBRIUM = (
    "Quality against evaluations",
    "Residual against evaluations",
    "Where the equilibrium converges slowly",
    "Evaluations a picture",
    "has a spectral radius of",
)


def test_classify_learns_and_shows_it(tmp_path):
    folder, summary = trained(ClassifyTask, classify(60, batch_size=64, run={"val_check_interval": 30}), tmp_path)
    assert 0.88 < summary["val_accuracy"] < summary["val_top5_accuracy"] <= 1
    assert summary["validated_on"] == "test" and summary["validation_samples"] == 500
    assert losses(folder, "class_loss")[-1] < 0.7 * losses(folder, "class_loss")[0]
    assert {"val_accuracy", "val_top5_accuracy", "val_loss"} == {name for name in summary if name.startswith("val_")}
    page = assert_page(folder, "Pictures and their class", "What pictures are taken for", "recall", *EQUILIBRIUM)
    assert "Pixels and their classes" not in page and f"{summary['val_accuracy']:.1%} of 500 test pictures" in page
    analysis = folder.read_json(folder.analysis)
    matrix = np.array(analysis["classes"]["matrix"])
    assert matrix.sum() == 500 and matrix.trace() / 500 == pytest.approx(summary["val_accuracy"])
    scores = {name: rest for name, *rest in analysis["classes"]["scores"]}
    assert scores["3"][:2] == [matrix[3].sum(), pytest.approx(matrix[3, 3] / matrix[3].sum())]
    # Stopped after as many evaluations as validation spends, it is what validation says.
    budgets = analysis["budgets"]
    after = dict(zip(budgets["evaluations"], budgets["accuracy"], strict=True))
    assert after[4] == pytest.approx(summary["val_accuracy"], abs=0.005)
    assert budgets["residual"][-1] < budgets["residual"][0]
    assert sum(analysis["evaluations"].values()) == 500


@pytest.mark.parametrize("kind", ["explicit", "resnet"])
def test_explicit_networks_classify_and_solve_nothing(tmp_path, kind):
    folder, summary = trained(ClassifyTask, classify(3, model={"kind": kind, "width": 4}, limit=200), tmp_path)
    assert summary["model"] == kind and summary["statuses"] == {} == summary["validation_statuses"]
    page = assert_page(folder, "Pictures and their class", "What pictures are taken for")
    assert "Quality against evaluations" not in page
    assert not ClassifyTask.open(classify(model={"kind": kind, "width": 4}), folder).solves


def test_segment_learns_and_shows_it(tmp_path, scenes):
    views = SegmentViewsConfig(size=(24, 32), scale=(0.8, 1.2), flip=True, colour=0.1)
    folder, summary = trained(SegmentTask, segment(scenes, 30, views=views), tmp_path)
    assert summary["val_mean_iou"] > 0.75 and summary["val_pixel_accuracy"] > 0.85
    assert losses(folder, "pixel_loss")[-1] < 0.5 * losses(folder, "pixel_loss")[0]
    assert {"val_mean_iou", "val_pixel_accuracy", "val_loss"} == {name for name in summary if name.startswith("val_")}
    page = assert_page(folder, "Pixels and their classes", "What pixels are taken for", "IoU", *EQUILIBRIUM)
    assert "Pictures and their class" not in page
    analysis = folder.read_json(folder.analysis)
    assert [name for name, _ in analysis["scenes"]["key"]] == ["sky", "road", "car"]
    assert all(colour in page for _, colour in analysis["scenes"]["key"])


def test_multitask_trains_both_heads_on_one_trunk(tmp_path):
    settings = multitask(25, limit=32, loss=MultitaskLossConfig(classes=1.0, pixels=3.0))
    folder, summary = trained(MultitaskTask, settings, tmp_path)  # few scenes, which it soon knows
    for name in ("class_loss", "pixel_loss"):
        assert sum(losses(folder, name)[-5:]) < 0.7 * sum(losses(folder, name)[:5])
    rows = [row for row in folder.read_metrics() if "class_loss" in row]
    assert all(row["loss"] == pytest.approx(row["class_loss"] + 3 * row["pixel_loss"], rel=1e-5) for row in rows)
    assert summary["validated_on"] == "valid" and summary["validation_samples"] == 250
    measures = {"val_accuracy", "val_top5_accuracy", "val_mean_iou", "val_pixel_accuracy", "val_loss"}
    assert measures == {name for name in summary if name.startswith("val_")} <= set(MultitaskTask.quality_names)
    words = ("Pictures and their class", "Pixels and their classes", "What pixels are taken for")
    page = assert_page(folder, *words, "What pictures are taken for", *EQUILIBRIUM)
    assert "validation pictures are named rightly, and the mean IoU of their pixels is" in page


def test_the_weights_of_the_losses_are_in_the_loss(scenes):
    task = ClassifyTask.create(classify(label_smoothing=0.3))
    x, labels, pixels = task.training_batch(0)
    loss, measures = task.training_loss((x, labels, pixels))
    probabilities = task.predict(x).classes.log_softmax(dim=1)
    own = probabilities.gather(1, labels.unsqueeze(1)).mean()
    expected = -(0.7 * own + 0.3 * probabilities.mean())
    assert pixels is None and loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert measures["batch_accuracy"]() == (probabilities.argmax(dim=1) == labels).float().mean().item()


def test_void_pixels_are_in_no_loss(scenes):
    task = SegmentTask.create(segment(scenes))
    x, _, pixels = task.training_batch(0)
    assert (pixels == VOID).any() and x.is_contiguous(memory_format=torch.channels_last)
    before, _ = task.training_loss((x, None, pixels))
    logits = task.predict(x).pixels.log_softmax(dim=1)
    counted = [-logits[b, pixels[b, i, j], i, j] for b, i, j in (pixels != VOID).nonzero().tolist()]
    assert before.item() == pytest.approx(torch.stack(counted).mean().item(), rel=1e-5)
    nothing, _ = task.training_loss((x, None, torch.full_like(pixels, VOID)))
    assert nothing.item() == 0
    nothing.backward()


# Measures -------------------------------------------------------------------------------------------------------------


def by_hand(task, scenes):
    """Mean IoU, pixel accuracy and loss over the files, a picture at a time, in numpy."""
    sets = {name: [set(), set()] for name in range(3)}  # places labelled and predicted so
    right, losses = 0, []
    mean, std = (np.array(each).reshape(3, 1, 1) for each in (task.seen.normalise.mean, task.seen.normalise.std))
    for number, path in enumerate(sorted((scenes / "test").iterdir())):
        labels = np.array(Image.open(scenes / "testannot" / path.name))
        x = (np.array(Image.open(path)).transpose(2, 0, 1) / 255 - mean) / std
        with torch.no_grad():
            logits = task.model.segment(torch.tensor(x[None], dtype=torch.float32))[0].double().numpy()
        for place in zip(*np.nonzero(labels < 3), strict=True):
            label, named = int(labels[place]), int(logits[(slice(None), *place)].argmax())
            sets[label][0].add((number, *place))
            sets[named][1].add((number, *place))
            right += label == named
            scores = logits[(slice(None), *place)]
            losses.append(np.log(np.exp(scores - scores[label]).sum()))
    iou = [len(a & b) / len(a | b) for a, b in sets.values()]
    return {"val_mean_iou": np.mean(iou), "val_pixel_accuracy": right / len(losses), "val_loss": np.mean(losses)}


@pytest.mark.parametrize("processes", [1, 2])
def test_quality_is_that_of_all_pixels_at_once(tmp_path, processes):
    scenes = write_scenes(tmp_path / "set", test=5, size=(13, 18))
    task = SegmentTask.create(segment(scenes, model={"downsamplings": 0}))
    task.eval()
    batches = task.evaluation_batches("valid")
    assert [len(batch[0]) for batch in batches] == [4, 1]  # the last is short
    total = {}
    with torch.no_grad():
        for rank in range(processes):
            for batch in Share(batches, rank, processes):
                for name, value in task.evaluation_sums(batch).items():
                    total[name] = total.get(name, 0) + value.double()
    found, expected = task.quality(total, "valid"), by_hand(task, scenes)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=2e-3), name
    if processes == 1:
        assert measure(task, "valid", task.config.trainer, RunFolder(tmp_path)) == pytest.approx(found)


def test_accuracies_are_those_of_all_pictures_at_once(tmp_path):
    task = ClassifyTask.create(replace(classify(), data=SamplesConfig(batch_size=32, eval_batch_size=130)))
    found = measure(task, "valid", task.config.trainer, RunFolder(tmp_path))
    task.eval()
    x, labels, _ = task.plain(task.samples.test)[0]
    rest = [task.plain(task.samples.test)[place] for place in range(1, 4)]
    x, labels = torch.cat([x, *(one[0] for one in rest)]), torch.cat([labels, *(one[1] for one in rest)])
    with torch.no_grad():
        logits = task.model(x).classes
    order = logits.argsort(dim=1, descending=True)
    assert len(x) == 500
    assert found["val_accuracy"] == pytest.approx((order[:, 0] == labels).double().mean().item(), abs=0.005)
    within = (order[:, :5] == labels.unsqueeze(1)).any(dim=1).double().mean().item()
    assert found["val_top5_accuracy"] == pytest.approx(within, abs=0.005)
    assert found["val_loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-4)


def test_two_classes_have_no_top_five(tmp_path):
    task = ClassifyTask.create(classify(path=write_classes(tmp_path / "set"), batch_size=4))
    assert set(measure(task, "valid", task.config.trainer, RunFolder(tmp_path))) == {"val_accuracy", "val_loss"}


def test_windows_and_scales(tmp_path, scenes):
    folder, summary = trained(SegmentTask, segment(scenes, 4), tmp_path)

    def measured(**full):
        task = SegmentTask.open(segment(scenes, full_resolution=FullResolutionConfig(**full)), folder)
        return measure(task, "valid", task.config.trainer, folder), task.assess()

    whole, nothing = measured()
    assert nothing == {} and whole["val_mean_iou"] == summary["val_mean_iou"]
    covering, _ = measured(window=(40, 99))
    assert covering == pytest.approx(whole)
    small, _ = measured(window=(16, 16))
    assert small["val_loss"] != pytest.approx(whole["val_loss"])
    _, one = measured(scales=(1.0,))
    assert one["multi_scale_mean_iou"] == pytest.approx(whole["val_mean_iou"], abs=1e-3)
    assert one["multi_scale_pixel_accuracy"] == pytest.approx(whole["val_pixel_accuracy"], abs=1e-3)
    _, several = measured(scales=(0.5, 1.0, 1.5), window=(24, 24))
    assert several.keys() == one.keys() and 0 < several["multi_scale_mean_iou"] != one["multi_scale_mean_iou"]


# Runs -----------------------------------------------------------------------------------------------------------------


def test_a_resumed_run_ends_at_the_same_bits(tmp_path):
    config = classify(
        6,
        path=write_classes(tmp_path / "set"),
        batch_size=4,
        model={"dropout": 0.2},
        views=ClassifyViewsConfig(padding=1, flip=True),
        regularization=RegularizationConfig(
            jacobian_weight=0.5, jacobian_frequency=0.5, jitter=2, spectral_radius_samples=2
        ),
        pretraining=PretrainingConfig(steps=4, layers=2),  # ends after the stop
        run={"checkpoint_every_n_steps": 3, "val_check_interval": 6},
    )
    whole, resumed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "resumed")
    train(ClassifyTask, config, whole)
    shutil.copytree(whole.path, resumed.path)
    for path in (resumed.weights, resumed.checkpoints / "step-00000006.ckpt"):
        path.unlink()
    train(ClassifyTask, config, resumed, resume=True)
    expected, found = (load_file(folder.weights) for folder in (whole, resumed))
    assert expected.keys() == found.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
    clocks = {"train_seconds", "train_cpu_seconds"}
    rows, again = (
        [{name: value for name, value in row.items() if name not in clocks} for row in folder.read_metrics()]
        for folder in (whole, resumed)
    )
    assert rows[-1] == again[-1] and "val_spectral_radius" in rows[-1]
    assert [row for row in rows if "loss" in row] == [row for row in again if "loss" in row]
    assert 0 < len([row for row in rows if "jacobian_penalty" in row]) < 6


def test_a_run_opens_without_its_data(tmp_path):
    data = write_classes(tmp_path / "set")
    config = classify(1, path=data, batch_size=4)
    folder, _ = trained(ClassifyTask, config, tmp_path)
    shutil.rmtree(data)
    task = ClassifyTask.open(config, folder)
    assert task.seen.class_names == ("blue", "red") and task.seen.channels == 3 and task.solves
    with torch.no_grad():
        assert task.predict(task.seen.normalise(torch.rand(2, 3, 8, 8))).classes.shape == (2, 2)


def test_batches_are_decided_by_seed_and_number(scenes):
    views = SegmentViewsConfig(size=(16, 20), scale=(0.5, 2.0), flip=True)
    first, same, other = (SegmentTask.create(segment(scenes, views=views, seed=seed)) for seed in (0, 0, 1))
    assert first.decoding_workers > 0
    for number in (0, 5):
        a, b, c = (task.training_batch(number) for task in (first, same, other))
        assert torch.equal(a[0], b[0]) and torch.equal(a[2], b[2]) and not torch.equal(a[0], c[0])
        assert a[0].shape == (4, 3, 16, 20) and a[2].shape == (4, 16, 20) and a[1] is None
    shares = [first.training_batch(0, rank, 2)[0] for rank in range(2)]
    assert not torch.equal(*shares)


def test_pictures_are_normalised_by_the_training_pictures(tmp_path, scenes):
    task = SegmentTask.create(segment(scenes))
    x = np.stack([np.array(Image.open(path)) for path in sorted((scenes / "train").iterdir())]) / 255
    assert task.seen.normalise.mean == pytest.approx(x.mean(axis=(0, 1, 2)), rel=1e-5)
    assert task.seen.normalise.std == pytest.approx(x.std(axis=(0, 1, 2)), rel=1e-4)
    published = SegmentTask.create(segment(scenes, views=SegmentViewsConfig(normalise="imagenet"))).seen.normalise
    assert published.mean == pytest.approx((0.485, 0.456, 0.406))


def test_validation_solves_by_its_own_solver(scenes):
    task = SegmentTask.create(segment(scenes, eval_solver=SolverConfig(rtol=None, max_steps=7)))
    task.eval()
    assert task.model.solve(torch.zeros(1, 3, 16, 16)).evaluations == 7
    task.train()
    assert task.model.solve(torch.zeros(1, 3, 16, 16)).evaluations == BUDGET.max_steps
