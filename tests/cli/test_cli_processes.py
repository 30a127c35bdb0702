"""Several processes, as torchrun starts them: one speaks and writes, and together they compute what one would."""

import json
import socket

import pytest
from safetensors.torch import load_file

from tests.cli.tiny_runs import TINY, start


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(poise, text_file, tmp_path):
    flags = [*TINY, "--data", str(text_file), "--max_steps", "5", "--log_every_n_steps", "2"]
    assert poise("train", "language", *flags, "--data.batch_size", 8, "--out", tmp_path / "one")[0] == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # What torchrun sets.
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "TORCHELASTIC_RUN_ID": "test",
    }
    arguments = ["train", "language", *flags, "--data.batch_size", "4", "--out", str(tmp_path / "two")]
    logs = [tmp_path / f"log{rank}" for rank in (0, 1)]
    processes = [
        start(arguments, log, environment={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank, log in enumerate(logs)
    ]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0], [log.read_text() for log in logs]
    assert "validation loss" in logs[0].read_text() and logs[1].read_text() == ""
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, weight in one.items():
        assert weight.sub(two[name]).abs().max() < 1e-4 * weight.abs().max(), name
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("one", "two")]
    # Every window of the validation text is counted once, whichever process had it.
    assert summaries[0]["val_loss"] == pytest.approx(summaries[1]["val_loss"], rel=1e-4)
