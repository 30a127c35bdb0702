"""Files of a run: whole or untouched, whatever happens while they are written."""

import json
import pickle

import pytest
import torch

from poise.tasks.checkpoints import AtomicCheckpointIO
from poise.tasks.errors import RunError
from poise.tasks.metrics_file import MetricsFile
from poise.tasks.run_folder import RunFolder, atomic_path, write_atomically
from tests.tasks.full_disk import full_disk


def test_a_full_disk_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "summary.json"
    write_atomically(path, b"old")
    with full_disk(100), pytest.raises(RunError, match=r"cannot write .*summary.json \(File too large\)") as error:
        write_atomically(path, b"x" * 1000)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "step-00000001.ckpt"
    engine = AtomicCheckpointIO()
    engine.save_checkpoint({"weight": torch.ones(3)}, path)
    with full_disk(100), pytest.raises(RunError, match="cannot write"):
        engine.save_checkpoint({"weight": torch.zeros(3000)}, path)
    assert torch.equal(engine.load_checkpoint(path)["weight"], torch.ones(3))
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_path(path) as draft:
        draft.write_text("new")
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


class Thing:
    """What a checkpoint must not hold."""


def test_a_checkpoint_that_holds_objects_is_refused(tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save({"thing": Thing()}, path)
    with pytest.raises(pickle.UnpicklingError):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)


def test_results_have_no_nan_and_round_trip(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_json(folder.summary, {"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": 2}})
    assert json.loads(folder.summary.read_text()) == {"a": None, "b": [None, 1.5], "c": {"d": 2}}
    folder.summary.write_text('{"a": ')
    assert folder.read_json(folder.summary) == {}


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "holds no config.yaml"),
        ("a: [", "cannot be read"),
        ("seed: 0", "names no task"),
        ("!!python/object/apply:os.system ['true']", "cannot be read"),
    ],
)
def test_a_folder_that_holds_no_run_is_told(tmp_path, content, part):
    folder = RunFolder(tmp_path)
    if content is not None:
        folder.config.write_text(content)
    with pytest.raises(RunError, match=part):
        folder.read_config()


def test_metrics_grow_by_rows_and_columns(tmp_path):
    folder = RunFolder(tmp_path)
    log = MetricsFile(folder)
    log.begin(None)
    log.log_metrics({"loss": 3.0}, step=1)
    log.log_metrics({"val_loss": 2.5}, step=1)
    log.log_metrics({"loss": 2.0}, step=2)
    assert folder.read_metrics() == [{"step": 1, "loss": 3}, {"step": 1, "val_loss": 2.5}, {"step": 2, "loss": 2}]


def test_metrics_of_a_resumed_run_continue_at_its_checkpoint(tmp_path):
    folder = RunFolder(tmp_path)
    log = MetricsFile(folder)
    log.begin(None)
    for step in (1, 2, 3):
        log.log_metrics({"loss": step}, step=step)
    with folder.metrics.open("a") as file:
        file.write("4,")  # cut short by a kill
    again = MetricsFile(folder)
    again.begin(resume_step=2)
    again.log_metrics({"loss": 30}, step=3)
    assert [(row["step"], row["loss"]) for row in folder.read_metrics()] == [(1, 1), (2, 2), (3, 30)]
    again.begin(None)
    assert folder.read_metrics() == []


def test_clearing_a_run_leaves_other_files(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_config("language", {"seed": 1})
    folder.checkpoints.mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    folder.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
