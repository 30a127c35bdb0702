"""CIFAR-10's pickled batches: written here opcode by opcode as Python 2 wrote them, and attacked."""

import os
import pickle
import struct

import numpy as np
import pytest
import torch

from poise.data import cifar10, cifar_batches
from poise.data.cifar_batches import read_cifar_batch


def text(value):
    """A string of Python 2."""
    return b"T" + struct.pack("<i", len(value)) + value


def python2(data, labels, dtype=b"u1", shape=None):
    """A dictionary {'data': array, 'labels': list} as protocol 2 of Python 2 with the numpy of that time."""
    shape = data.shape if shape is None else shape
    numbers = b"".join(b"J" + struct.pack("<i", label) for label in labels)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR"
        b"(K\x01(" + b"".join(b"J" + struct.pack("<i", n) for n in shape) + b"t"
        b"cnumpy\ndtype\n("
        + text(dtype)
        + b"K\x00K\x01tR(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89" + text(data.tobytes()) + b"tb"
    )
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + b"](" + numbers + b"eu."


def batch(number=4, seed=0):
    data = np.random.default_rng(seed).integers(0, 256, (number, 3072), dtype=np.uint8)
    return data, [(seed + place) % 10 for place in range(number)]


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        (tmp_path / name).write_bytes(python2(*batch(seed=seed)))
    return tmp_path


def test_the_pickle_written_here_is_what_python_reads():
    data, labels = batch()
    held = pickle.loads(python2(data, labels), encoding="bytes")
    assert np.array_equal(held[b"data"], data) and held[b"labels"] == labels


def test_red_green_and_blue_lie_row_by_row(tmp_path):
    data = np.zeros((1, 3072), np.uint8)
    data[0, 1024 + 5 * 32 + 7] = 9  # green, row 5, column 7
    (tmp_path / "one").write_bytes(python2(data, [3]))
    pictures, labels = read_cifar_batch(tmp_path / "one")
    assert pictures.shape == (1, 3, 32, 32) and pictures.dtype == torch.uint8 and labels.tolist() == [3]
    assert pictures.nonzero().tolist() == [[0, 1, 5, 7]] and pictures.max() == 9


@pytest.mark.parametrize("protocol", [3, 4])
def test_batches_pickled_anew_are_read_too(tmp_path, protocol):
    data, labels = batch()
    (tmp_path / "new").write_bytes(pickle.dumps({b"data": data, b"labels": labels}, protocol=protocol))
    assert torch.equal(read_cifar_batch(tmp_path / "new")[0], torch.from_numpy(data).view(4, 3, 32, 32))


def test_five_batches_are_one_set_and_a_limit_is_a_prefix(folder):
    whole, some = cifar_batches(folder), cifar_batches(folder, limit=6)
    assert (len(whole.train), len(whole.test)) == (20, 4) and len(some.train) == 6 and len(some.test) == 4
    expected = np.concatenate([batch(seed=seed)[0] for seed in range(5)])
    assert torch.equal(whole.train.inputs.flatten(1), torch.from_numpy(expected))
    assert torch.equal(some.train.inputs, whole.train.inputs[:6])
    assert whole.train.class_names[8] == "ship" and "20 samples" in str(whole) and str(folder) in str(whole)
    (folder / "data_batch_3").write_bytes(b"damaged")  # beyond the limit, so not read
    assert torch.equal(cifar10(folder, limit=8).train.labels, whole.train.labels[:8])


class Runs:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    "attack",
    [
        pickle.dumps(Runs(), protocol=2),
        pickle.dumps({b"data": Runs(), b"labels": []}, protocol=4),
        b'cbuiltins\neval\n(S\'__import__("os").mkdir("ran")\'\ntR.',
        b"cnumpy\nload\n(S'ran'\ntR.",
        b"cnumpy.core.multiarray\nscalar\n(tR.",
        b"\x80\x02\x82\x01.",  # the extension registry
        python2(*batch(), dtype=b"O"),
        b"cnumpy\ndtype\n(N}S'__init__'\nNstb.",  # would change the class that stands for numpy's
    ],
)
def test_a_pickle_that_would_run_code_runs_none(tmp_path, monkeypatch, refuses, attack):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad").write_bytes(attack)
    with refuses("bad", "is no batch of CIFAR-10"):
        read_cifar_batch(tmp_path / "bad")
    assert os.listdir(tmp_path) == ["bad"]
    (tmp_path / "good").write_bytes(python2(*batch()))
    assert len(read_cifar_batch(tmp_path / "good")[1]) == 4  # and the next file is read as ever


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ("no batch",)),
        (python2(*batch())[:-200], ("no batch",)),
        (python2(*batch(), shape=(4, 3071)), ("does not hold as many bytes",)),
        (python2(batch()[0][:, :3000], [0, 1, 2, 3]), ("(4, 3000)", "4 labels")),
        (python2(batch()[0], [0, 1, 2]), ("(4, 3072)", "3 labels")),
        (python2(batch()[0], [0, 1, 2, 10]), ("label of 0 to 9",)),
        (pickle.dumps({b"data": b"", b"labels": []}), ("lacks an array",)),
        (pickle.dumps([1, 2]), ("lacks an array",)),
    ],
)
def test_damaged_batches_are_refused(folder, refuses, content, parts):
    (folder / "data_batch_2").write_bytes(content)
    with refuses("data_batch_2", *parts):
        cifar_batches(folder)


def test_missing_files_and_limits_of_nothing_are_refused(folder, refuses):
    with refuses("limit=0"):
        cifar_batches(folder, limit=0)
    (folder / "test_batch").unlink()
    with refuses("test_batch"):
        cifar_batches(folder)
