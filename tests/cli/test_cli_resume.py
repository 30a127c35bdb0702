"""A run that is stopped, in whatever way and wherever, goes on to the very weights of one that was not."""

import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from poise.tasks.checkpoints import saved_checkpoints, step_of
from poise.tasks.run_folder import RunFolder
from tests.cli.tiny_runs import TINY, flags, run_in_child
from tests.tasks.full_disk import full_disk

STEPS = 40
# Noise, gathered gradients and validations in between: whatever could make a resumed run differ.
FLAGS = [
    *TINY,
    *flags("--model.dropout 0.1 --accumulate_grad_batches 2 --checkpoint_every_n_steps 7 --val_check_interval 15"),
    *flags(f"--log_every_n_steps 5 --max_steps {STEPS}"),
]


def arguments(text_file, folder, *more):
    return ["train", "language", "--data", str(text_file), *FLAGS, "--out", str(folder), *more]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, text_file):
    """The folder of a run that nothing stopped."""
    from poise.cli.main import main

    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main(arguments(text_file, folder)) == 0
    return folder


def assert_same_run(folder, whole):
    """Weights bit for bit, and every measure but the clocks."""
    found, expected = (load_file(path / "model.safetensors") for path in (folder, whole))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    clocks = {"train_seconds", "train_cpu_seconds"}
    rows, expected_rows = (
        [{name: value for name, value in row.items() if name not in clocks} for row in RunFolder(path).read_metrics()]
        for path in (folder, whole)
    )
    assert [row for row in rows if "loss" in row] == [row for row in expected_rows if "loss" in row]
    assert rows[-1] == expected_rows[-1]
    summary, expected_summary = (RunFolder(path).read_json(path / "summary.json") for path in (folder, whole))
    for name in ("val_loss", "mean_forward_evaluations", "mean_backward_evaluations", "statuses"):
        assert summary[name] == expected_summary[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "saved"),
    [
        ("step 3", []),
        ("write config.yaml", []),
        ("write step-00000007.ckpt", []),
        ("write step-00000014.ckpt", [7]),
        ("step 24", [21, 15]),
        ("write model.safetensors", [40, 35]),
    ],
)
def test_killed_and_resumed_is_uninterrupted(poise, text_file, tmp_path, uninterrupted, stop, saved):
    folder = RunFolder(tmp_path / "run")
    assert run_in_child(arguments(text_file, folder.path), tmp_path / "log", stop=stop) == -signal.SIGKILL
    assert [step_of(path) for path in saved_checkpoints(folder)] == saved and not folder.summary.exists()
    code, out, err = poise(*arguments(text_file, folder.path, "--resume"))
    assert code == 0, err
    assert (f"from step {saved[0]}" if saved else "no checkpoint to go on from") in out
    assert_same_run(folder.path, uninterrupted)


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "half-written files"])
def test_resume_where_nothing_was_saved_yet_starts_from_the_beginning(poise, text_file, tmp_path, uninterrupted, left):
    folder = tmp_path / "run"
    if left != "nothing":
        folder.mkdir()
    if left == "half-written files":
        (folder / ".config.yaml.draft").write_text("task: lang")
        (folder / "metrics.csv").write_text("step,loss\n1,3.")
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / ".step-00000007.ckpt.draft").write_bytes(b"PK")
    code, out, _ = poise(*arguments(text_file, folder, "--resume"))
    assert code == 0 and "no checkpoint to go on from" in out
    assert_same_run(folder, uninterrupted)
    assert not list(folder.rglob("*.draft"))


@pytest.mark.parametrize("damage", ["cut short", "one bit", "a pickle that runs code"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(poise, text_file, tmp_path, uninterrupted, damage):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    newest, before = saved_checkpoints(RunFolder(folder))
    content = bytearray(newest.read_bytes())
    if damage == "cut short":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "one bit":
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
    else:
        torch.save({"state_dict": Runs()}, newest)
    (folder / "model.safetensors").unlink()
    code, out, err = poise("train", "language", "--out", folder, "--resume")
    assert code == 0 and f"from step {step_of(before)}" in out
    assert len(err.splitlines()) >= 1 and err.startswith(f"poise: warning: the checkpoint {newest} is damaged")
    assert_same_run(folder, uninterrupted)
    assert not (folder / "owned").exists()


class Runs:
    """What must never be rebuilt from a file."""

    def __reduce__(self):
        return os.system, ("touch owned",)


def test_resuming_a_finished_run_changes_nothing(poise, text_file, tmp_path, uninterrupted):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    code, out, _ = poise("train", "language", "--out", folder, "--resume")
    assert code == 0 and f"from step {STEPS}" in out
    assert_same_run(folder, uninterrupted)


def test_a_resumed_run_refuses_other_settings_and_other_data(poise, text_file, tmp_path, uninterrupted):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    code, _, err = poise("train", "language", "--out", folder, "--resume", "--seed", "1")
    assert code == 2 and err.startswith(f"poise: the run in {folder} has seed 0, not 1;")
    code, _, err = poise("train", "language", "--out", folder, "--resume", "--recipe", "demo")
    assert code == 2 and "has the recipe None, not 'demo'" in err
    text = text_file.read_text()
    try:
        text_file.write_text(text.replace("cat", "dog"))
        code, _, err = poise("train", "language", "--out", folder, "--resume")
    finally:
        text_file.write_text(text)
    assert code == 1 and "the training data is not what the run began with" in err


@pytest.mark.slow
def test_ctrl_c_saves_the_step_and_says_how_to_go_on(poise, text_file, tmp_path, uninterrupted):
    folder, log = RunFolder(tmp_path / "run"), tmp_path / "log"
    assert run_in_child(arguments(text_file, folder.path), log, stop="step 24", signum=signal.SIGINT) == 130
    assert [step_of(path) for path in saved_checkpoints(folder)] == [24, 21]
    command = f"poise train language --out {folder.path} --resume"
    assert (
        log.read_text().splitlines()[-1] == f"poise: interrupted after step 24, which is saved; go on with: {command}"
    )
    assert poise(*command.split()[1:])[0] == 0
    assert_same_run(folder.path, uninterrupted)


def test_a_full_disk_stops_the_run_with_one_sentence(poise, text_file, tmp_path, uninterrupted):
    folder = tmp_path / "run"
    with full_disk(room=20_000):  # settings and measures fit, a checkpoint does not
        code, _, err = poise(*arguments(text_file, folder))
    path = folder / "checkpoints" / "step-00000007.ckpt"
    assert code == 1 and err.splitlines()[-1].startswith(f"poise: cannot write {path} (")
    assert "Traceback" not in err and list(path.parent.iterdir()) == []
    assert poise(*arguments(text_file, folder, "--resume"))[0] == 0
    assert_same_run(folder, uninterrupted)


@pytest.mark.filterwarnings("ignore::poise.ConvergenceWarning")
def test_a_loss_that_is_nan_stops_the_run_and_keeps_the_last_checkpoint(poise, text_file, tmp_path):
    folder = tmp_path / "run"
    flags = [*TINY, "--optimizer", "adamw", "--optimizer.lr", "1e-3", "--checkpoint_every_n_steps", 2, "--out", folder]
    assert poise("train", "language", "--data", text_file, *flags, "--max_steps", 4)[0] == 0
    good = torch.load(folder / "checkpoints" / "step-00000004.ckpt", weights_only=True)
    name = next(iter(good["state_dict"]))
    good["state_dict"][name][:] = float("nan")
    torch.save(good, folder / "checkpoints" / "step-00000004.ckpt")
    code, _, err = poise("train", "language", "--out", folder, "--resume", "--max_steps", 8)
    assert code == 1 and len(err.splitlines()) == 1 and "the loss is nan at step 4" in err
    assert max(step_of(path) for path in saved_checkpoints(RunFolder(folder))) == 4
