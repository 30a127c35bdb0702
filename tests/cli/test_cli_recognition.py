"""Whole commands on pictures: what train leaves, evaluate, report; a damaged picture in the middle, a hostile batch."""

import json
import os
import pickle
import subprocess
import sys
import threading

import pytest

from poise.cli.main import main
from poise.data import ShuffledBatches, read_samples
from poise.tasks.checkpoints import saved_checkpoints, step_of
from poise.tasks.run_folder import RunFolder
from tests.cli.tiny_runs import flags
from tests.tasks.recognition_runs import write_classes, write_scenes

NETWORK = flags("--model.channels [8,8] --model.groups 4 --model.expansion 1 --model.head_width 2")
TINY = [*NETWORK, *flags("--model.head_features 16 --solver.max_steps 3 --eval_solver.rtol null --threads 1")]
BUDGET = flags("--eval_solver.max_steps 4 --accelerator cpu --devices 1")


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    """The folder of a short segmentation run; tests only read it."""
    folder = tmp_path_factory.mktemp("cli")
    scenes = write_scenes(folder / "scenes", train=4, test=3, size=(17, 22))
    settings = flags("--data.batch_size 2 --max_steps 4 --full_resolution.scales [0.5,1.0] --views.flip true")
    arguments = ["train", "segment", "--data", str(scenes), *TINY, *BUDGET, *settings, "--out", str(folder / "run")]
    assert main(arguments) == 0
    return folder / "run"


def test_evaluate_repeats_the_validation_and_looks_at_several_scales(poise, segmented):
    code, out, _ = poise("evaluate", segmented)
    summary, found = (json.loads((segmented / f"{name}.json").read_text()) for name in ("summary", "evaluation"))
    assert code == 0 and found["val_mean_iou"] == summary["val_mean_iou"]
    assert "validation mean IoU" in out and "multi scale mean iou" in out and 0 < found["multi_scale_mean_iou"] <= 1
    assert found["solver"]["max_steps"] == 4
    assert poise("report", segmented)[0] == 0
    assert "multi scale mean iou" in (segmented / "report.html").read_text()


def test_evaluate_takes_another_budget(poise, segmented):
    code, _, _ = poise("evaluate", segmented, "--solver.rtol", "null", "--solver.max_steps", "6")
    found = json.loads((segmented / "evaluation.json").read_text())
    assert code == 0 and found["solver"]["max_steps"] == 6 and found["mean_evaluations"] == 6.0


def test_pictures_too_small_for_the_scales_are_refused_before_anything_is_measured(poise, segmented, tmp_path):
    scenes = write_scenes(tmp_path / "scenes", train=2, test=1, size=(6, 9))
    (segmented / "evaluation.json").unlink(missing_ok=True)
    code, out, err = poise("evaluate", segmented, "--data", scenes)
    assert code == 2 and out == "" and len(err.splitlines()) == 1
    assert "pictures of 6x9, made 3x4 by 0.5 of full_resolution.scales, have no 2 scales" in err
    assert err.endswith("pass fewer model.channels, or larger pictures or scales.\n")
    assert not (segmented / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("scales", "part"),
    [
        ("[1.0,0.01]", "pictures of 17x22, made 0x0 by 0.01 of full_resolution.scales, have no 2 scales"),
        ("[0.2]", "pictures of 17x22, made 3x4 by 0.2 of full_resolution.scales, have no 2 scales"),
        ("[.inf]", "full_resolution.scales is [inf]; pass finite numbers above 0."),
    ],
)
def test_scales_that_evaluate_could_not_measure_are_refused_before_training(poise, tmp_path, scales, part):
    data = write_scenes(tmp_path / "scenes", train=4, test=1, size=(17, 22))
    more = [*flags("--data.batch_size 2 --full_resolution.scales"), scales]
    code, _, err = poise("train", "segment", "--data", data, *TINY, *BUDGET, *more, "--out", tmp_path / "run")
    assert code == 2 and len(err.splitlines()) == 1 and part in err
    assert not (tmp_path / "run").exists()


def test_the_report_is_rebuilt_without_torch(segmented):
    (segmented / "evaluation.json").unlink(missing_ok=True)
    assert main(["report", str(segmented)]) == 0
    before = (segmented / "report.html").read_text()
    (segmented / "report.html").unlink()
    program = (
        "import sys; from poise.cli.main import main; "
        f"assert main(['report', {str(segmented)!r}]) == 0; print({{'torch', 'numpy', 'PIL'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "set()", done.stderr
    assert (segmented / "report.html").read_text() == before
    assert "Pixels and their classes" in before and "http://" not in before and "https://" not in before


@pytest.mark.parametrize("kind", ["explicit", "resnet"])
def test_a_network_that_solves_nothing_takes_no_solver(poise, tmp_path, kind):
    data, folder = write_classes(tmp_path / "set"), tmp_path / "run"
    more = flags(f"--model {kind} --model.width 4 --data.batch_size 4 --max_steps 1")
    assert poise("train", "classify", "--data", data, *TINY, *BUDGET, *more, "--out", folder)[0] == 0
    code, _, err = poise("evaluate", folder, "--solver.max_steps", 3)
    assert code == 2 and len(err.splitlines()) == 1
    assert f"--solver.max_steps does not apply: the network of {folder} solves nothing" in err
    code, out, _ = poise("evaluate", folder)
    assert code == 0 and "validation accuracy" in out and "evaluations a solve" not in out


def test_a_run_starts_from_another(poise, segmented, tmp_path):
    data = write_classes(tmp_path / "set", size=(16, 16))
    network = [*TINY, *BUDGET, *flags("--model.downsamplings 1 --data.batch_size 4 --max_steps 1")]
    arguments = ["train", "classify", "--data", data, *network, "--out", tmp_path / "run"]
    assert poise(*arguments, "--init_from", segmented)[0] == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["init_from"] == str(segmented)
    code, _, err = poise(*arguments, "--init_from", tmp_path / "none", "--overwrite")
    assert code == 2 and len(err.splitlines()) == 1 and "init_from names no run to start from" in err
    assert (tmp_path / "run" / "summary.json").exists()


def test_a_truncated_picture_in_the_middle_of_an_epoch_stops_the_run_and_keeps_its_checkpoints(poise, tmp_path):
    data, folder = write_classes(tmp_path / "set", train=510, test=2), RunFolder(tmp_path / "run")
    train = read_samples(str(data)).train
    batches = [set(ShuffledBatches(train, 100, 0).places(index).tolist()) for index in range(10)]
    # One that neither normalisation nor the run's fingerprint looks at, and that some steps go before.
    place = max(place for batch in batches[4:8] for place in batch)
    step = next(index for index, batch in enumerate(batches) if place in batch)
    path = data / "train" / "red" / f"{place - 510:03}.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:-25])
    arguments = [*TINY, *BUDGET, *flags("--data.batch_size 100 --max_steps 9 --checkpoint_every_n_steps 2")]
    code, _, err = poise("train", "classify", "--data", data, *arguments, "--out", folder.path)
    assert place >= 1000 and 4 <= step < 8
    last = err.splitlines()[-1]
    assert code != 0 and "Traceback" not in err
    assert last.startswith(f"poise: the picture {str(path)!r} cannot be decoded (") and last.endswith("fetch it anew.")
    saved = step_of(saved_checkpoints(folder)[0])
    # The engine asks for a batch before it ends the step ahead of it.
    assert 0 < saved <= step < saved + 4 and not folder.summary.exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("poise-batches")]
    path.write_bytes(whole)
    code, out, _ = poise("train", "classify", "--out", folder.path, "--resume")
    assert code == 0 and f"from step {saved}" in out


class Runs:
    """What must never be rebuilt from a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_a_hostile_pickle_in_place_of_a_batch_runs_nothing(poise, tmp_path, monkeypatch):
    folder = tmp_path / "sets" / "cifar10"
    folder.mkdir(parents=True)
    owned = tmp_path / "owned"
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        (folder / name).write_bytes(pickle.dumps({b"data": Runs(str(owned)), b"labels": [0]}, protocol=4))
    monkeypatch.setenv("POISE_DATA", str(tmp_path / "sets"))
    code, _, err = poise("train", "classify", "--data", "cifar10", *TINY, *BUDGET, "--out", tmp_path / "run")
    assert code == 2 and len(err.splitlines()) == 1
    assert "data_batch_1' is no batch of CIFAR-10 (it asks for " in err and "mkdir, which is no array of bytes" in err
    assert not owned.exists() and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("segment --data digits", "has a class each and none at each pixel"),
        ("multitask --data digits", "has a class each and none at each pixel"),
        ("classify --model.channels [8,8,8,8,8,8]", "have no 6 scales"),
        ("classify --data no-such-set", "there is no set 'no-such-set', nor a folder"),
        ("classify --regularization.jitter 9", "pass a jitter below the budget"),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_leaves_nothing(poise, tmp_path, arguments, part):
    task, *rest = flags(arguments)
    code, _, err = poise("train", task, *TINY, *BUDGET, *rest, "--out", tmp_path / "run")
    assert code == 2 and len(err.splitlines()) == 1 and part in err
    assert not (tmp_path / "run").exists()
