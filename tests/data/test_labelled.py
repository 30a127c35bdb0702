"""Labelled sets: digits, idx files, features of several kinds, packed pictures; and what is damaged is refused."""

import gzip
import io
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from poise.data import (
    DataError,
    Placed,
    Samples,
    digits,
    idx_pictures,
    moved_digits,
    multiple_features,
    packed_pictures,
)

gzipped = partial(gzip.compress, mtime=0)  # a time in the bytes would be one in the tests' names
DATA = Path(os.environ.get("POISE_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared data folder")


def test_digits_are_the_fixed_split():
    found = digits()
    assert (len(found.train), len(found.test)) == (1297, 500)
    assert found.train.inputs.shape == (1297, 1, 8, 8) and found.train.inputs.max() == 1
    assert torch.bincount(found.train.labels).min() > 100
    from sklearn.datasets import load_digits

    order = np.random.RandomState(0).permutation(1797)
    assert torch.equal(found.test.labels, torch.from_numpy(load_digits().target[order[1297:]]))


def test_a_digit_is_placed_whole_at_every_place():
    x = torch.arange(1.0, 5.0).view(1, 1, 2, 2).repeat(400, 1, 1, 1)
    placed = Placed(side=4, gain=0.0, noise=0.0)(x, torch.Generator().manual_seed(0))
    assert placed.shape == (400, 1, 4, 4) and (placed.flatten(1).sum(dim=1) == 10).all()
    corners = {tuple((sample == 1).nonzero()[0].tolist()) for sample in placed[:, 0]}
    assert corners == {(row, column) for row in range(3) for column in range(3)}
    for sample in placed[:, 0]:
        row, column = (sample == 1).nonzero()[0].tolist()
        assert torch.equal(sample[row : row + 2, column : column + 2], x[0, 0])


def test_gain_and_noise_have_their_ranges_and_the_seed_decides():
    view, x = Placed(side=12), torch.ones(2000, 1, 8, 8)
    first, again = (view(x, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again) and not torch.equal(first, view(x, torch.Generator().manual_seed(2)))
    mean = first.sum(dim=(1, 2, 3)) / 64
    assert mean.min() > 0.75 and mean.max() < 1.25 and mean.std() == pytest.approx(0.4 / 12**0.5, rel=0.1)
    blank = view(torch.zeros(2000, 1, 8, 8), torch.Generator().manual_seed(0))
    assert blank.std() == pytest.approx(0.05, rel=0.02)
    with pytest.raises(ValueError, match="smaller than a picture of 8x8"):
        Placed(side=7)(x, torch.Generator())


def test_moved_digits_repeat_each_digit():
    found = moved_digits()
    assert found.train.inputs.shape == (4 * 1297, 1, 12, 12) and len(found.test) == 1000
    sums = found.test.inputs.sum(dim=(1, 2, 3)).view(2, 500)
    assert torch.allclose(sums[0], sums[1]) and torch.equal(found.test.labels[:500], found.test.labels[500:])


def test_few_are_so_many_a_class():
    train = digits().train
    few = train.few(10, torch.Generator().manual_seed(0))
    assert torch.equal(torch.bincount(train.select(few).labels), torch.full((10,), 10)) and len(few.unique()) == 100
    with pytest.raises(ValueError, match="ask for fewer"):
        digits().test.few(100, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="one label each"):
        Samples(torch.zeros(3, 2), torch.zeros(2).long(), ("a",))


def idx(array, kind=8):
    return bytes([0, 0, kind, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


@pytest.fixture
def idx_folder(tmp_path):
    generator = np.random.default_rng(0)
    for name, number in (("train", 5), ("t10k", 3)):
        pictures = generator.integers(0, 256, (number, 4, 3), dtype=np.uint8)
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzipped(idx(pictures)))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx(np.arange(number, dtype=np.uint8)))
    return tmp_path


def test_idx_files_plain_and_gzipped(idx_folder):
    found = idx_pictures(idx_folder)
    assert found.train.inputs.shape == (5, 1, 4, 3) and found.train.inputs.dtype == torch.uint8
    assert found.test.labels.tolist() == [0, 1, 2]
    expected = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    assert torch.equal(found.train.inputs[:, 0], torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("train-images-idx3-ubyte.gz", b"no gzip", "cannot read"),
        ("train-images-idx3-ubyte.gz", gzipped(idx(np.zeros((5, 4, 3), np.uint8)))[:-9], "cannot read"),
        ("train-images-idx3-ubyte.gz", gzipped(idx(np.zeros((5, 4, 3), np.uint8))[:-1]), "holds 59 bytes"),
        ("train-images-idx3-ubyte.gz", gzipped(idx(np.zeros((5, 4, 3), np.uint8), kind=9)), "begins with"),
        ("train-images-idx3-ubyte.gz", gzipped(idx(np.zeros((4, 4, 3), np.uint8))), "from one set"),
        ("train-images-idx3-ubyte.gz", gzipped(b"\0\0\x08\x03\0\0\0\x05"), "within its header of 16"),
        ("train-labels-idx1-ubyte", idx(np.zeros((5, 1), np.uint8)), "from one set"),
        ("t10k-labels-idx1-ubyte", idx(np.array([1, 2, 77], np.uint8)), "label 77"),
        ("t10k-labels-idx1-ubyte", None, "has no t10k-labels"),
    ],
)
def test_damaged_idx_files_are_refused(idx_folder, name, data, message):
    (idx_folder / name).unlink() if data is None else (idx_folder / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        idx_pictures(idx_folder)


def packed(path, number=4, side=8, **changed):
    from PIL import Image

    files = []
    for place in range(number):
        buffer = io.BytesIO()
        Image.fromarray(np.full((side, side, 3), 40 * place, np.uint8)).save(buffer, "JPEG", quality=95)
        files.append(buffer.getvalue())
    held = {
        "jpeg": np.frombuffer(b"".join(files), np.uint8),
        "offsets": np.cumsum([0, *map(len, files)]),
        "labels": np.arange(number, dtype=np.uint8) % 2,
        "class_names": np.array(["cat", "dog"]),
        **changed,
    }
    np.savez(path, **{name: array for name, array in held.items() if array is not None})


def test_packed_pictures_are_decoded_up_to_the_limit(tmp_path):
    packed(tmp_path / "train.npz")
    packed(tmp_path / "test.npz", number=2)
    found = packed_pictures(tmp_path, limit=3)
    assert found.train.inputs.shape == (3, 3, 8, 8) and len(found.test) == 2
    assert found.train.class_names == ("cat", "dog") and found.train.labels.tolist() == [0, 1, 0]
    assert (found.train.inputs[2].float() - 80).abs().max() <= 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": None}, "holds no 'labels'"),
        ({"offsets": np.array([0, 5, 4, 9, 10])}, "do not fit"),
        (
            {"jpeg": np.zeros(100, np.uint8), "offsets": np.array([0, 25, 50, 75, 100])},
            "picture 0 .* cannot be decoded",
        ),
        ({"class_names": np.array([{"a": 1}], dtype=object)}, "cannot read"),
    ],
)
def test_damaged_packed_pictures_are_refused(tmp_path, changed, message):
    for name in ("train", "test"):
        packed(tmp_path / f"{name}.npz", **changed)
    with pytest.raises(DataError, match=message):
        packed_pictures(tmp_path)
    with pytest.raises(DataError, match="cannot read"):
        packed_pictures(tmp_path / "nowhere")


@needs_data
def test_the_real_sets():
    mnist = idx_pictures(DATA / "mnist")
    assert (len(mnist.train), len(mnist.test)) == (60000, 10000) and mnist.train.inputs.shape[1:] == (1, 28, 28)
    features = multiple_features(DATA / "mfeat.npz")
    pixels, fourier = features.train.inputs
    assert pixels.shape == (1500, 1, 16, 15) and fourier.shape == (1500, 76) and pixels.max() == 1
    assert torch.equal(torch.bincount(features.test.labels), torch.full((10,), 50))
    assert fourier.mean().abs() < 1e-5 and fourier.std() == pytest.approx(1.0, abs=1e-2)
    with pytest.raises(DataError, match="names no kind"):
        multiple_features(DATA / "mfeat.npz", kinds=("pixels",))
    cifar = packed_pictures(DATA / "cifar10", limit=20).train
    assert cifar.inputs.shape == (20, 3, 32, 32) and torch.equal(cifar.labels, torch.arange(20) % 10)
    assert cifar.class_names[0] == "airplane"
