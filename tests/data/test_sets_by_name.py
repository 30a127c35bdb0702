"""Labelled sets by name, and folders of pictures."""

import gzip

import numpy as np
import pytest
import torch
from PIL import Image

from poise.data import EncodedPictures, multiple_features, picture_folders, read_samples


def write_pictures(folder, size=(5, 7), counts=(3, 2), parts=("train", "test")):
    generator = np.random.default_rng(0)
    held = {}
    for part in parts:
        for name, number in zip(("cat", "dog"), counts, strict=True):
            (folder / part / name).mkdir(parents=True)
            for place in range(number):
                held[part, name, place] = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
                Image.fromarray(held[part, name, place]).save(folder / part / name / f"{place}.png")
    return held


def write_mnist(folder):
    folder.mkdir()
    for name in ("train", "t10k"):
        for kind, array in (("images-idx3", np.zeros((20, 4, 4), np.uint8)), ("labels-idx1", np.arange(20) % 10)):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


@pytest.mark.parametrize("valid", [None, "valid", "val"])
def test_folders_are_classes_by_name_and_stay_encoded(tmp_path, valid):
    held = write_pictures(tmp_path, parts=("train", "test", *([valid] if valid else [])))
    (tmp_path / "train" / "cat" / ".hidden").write_text("left out")
    found = picture_folders(tmp_path)
    assert found.train.class_names == ("cat", "dog") and found.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert isinstance(found.train.inputs, EncodedPictures) and (found.valid is None) == (valid is None)
    expected = [held["train", name, place] for name, place in (("cat", 1), ("dog", 0))]
    picked = found.train.select(torch.tensor([1, 3])).inputs
    assert torch.equal(picked.permute(0, 2, 3, 1), torch.from_numpy(np.stack(expected)))
    assert str(tmp_path) in str(found) and "5 samples to train on" in str(found)


def test_folders_of_several_sizes_need_a_size(tmp_path, refuses):
    write_pictures(tmp_path, size=(5, 7), parts=("train",))
    write_pictures(tmp_path, size=(9, 9), parts=("test",))
    with refuses("'test'", "9x9", "5x7", "pass a size"):
        picture_folders(tmp_path)
    found = picture_folders(tmp_path, size=(4, 6))
    assert found.test.select(slice(None)).inputs.shape == (5, 3, 4, 6)


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (lambda folder: (folder / "train" / "cat" / "notes.txt").write_text("x"), ("notes.txt", "is no picture")),
        (lambda folder: (folder / "train" / "emu").mkdir(), ("emu", "holds no picture")),
        (lambda folder: (folder / "test").rename(folder / "elsewhere"), ("test", "cannot read")),
        (lambda folder: (folder / "test" / "dog").rename(folder / "test" / "emu"), ("'dog'", "'emu'")),
        (lambda folder: (folder / "train" / "cat" / "0.png").write_bytes(b"no"), ("0.png", "cannot be decoded")),
        (lambda folder: [(folder / name).mkdir() for name in ("val", "valid")], ("both",)),
        (lambda folder: (folder / "val").mkdir(), ("val", "no folder of a class")),
    ],
)
def test_folders_that_do_not_fit_are_refused(tmp_path, refuses, spoil, parts):
    write_pictures(tmp_path)
    spoil(tmp_path)
    with refuses(*parts):
        picture_folders(tmp_path)


def test_names_find_what_comes_along_and_what_lies_in_the_data_folder(data_folder, refuses):
    assert len(read_samples("digits").train) == 1297
    assert read_samples("moved-digits").test.inputs.shape == (1000, 1, 12, 12)
    with refuses("'mnist'", str(data_folder), "POISE_DATA"):
        read_samples("mnist")
    write_mnist(data_folder / "mnist")
    assert read_samples("mnist").train.inputs.shape == (20, 1, 4, 4)
    (data_folder / "cifar10").mkdir()
    with refuses("data_batch_1", "train.npz"):
        read_samples("cifar10")


def test_a_limit_is_a_prefix_that_keeps_every_class(data_folder, refuses):
    write_mnist(data_folder / "mnist")
    found = read_samples("mnist", limit=12)
    assert len(found.train) == 12 and len(found.test) == 20 and "12 samples" in str(found)
    with refuses("limit=9", "9 of 10 classes"):
        read_samples("mnist", limit=9)
    with refuses("limit=0"):
        read_samples("digits", limit=0)


@pytest.mark.parametrize(
    ("source", "hint"), [("mnits", "'mnist'"), ("moved_digits", "'moved-digits'"), ("", "pass one")]
)
def test_unknown_names_are_refused_with_the_nearest(data_folder, refuses, source, hint):
    with refuses(repr(source), hint, "digits, moved-digits, scenes, mnist, cifar10, mfeat, camvid"):
        read_samples(source)


def test_a_folder_is_read_by_its_path(tmp_path):
    write_pictures(tmp_path)
    assert len(read_samples(str(tmp_path)).train) == 5


def write_features(path, **changed):
    generator = np.random.default_rng(0)
    held = {"fou": generator.normal(3, 2, (40, 76)), "pix": generator.integers(0, 7, (40, 240)).astype(float)}
    held["labels"] = np.repeat(np.arange(10), 4).astype(np.uint8)
    np.savez(path, **{name: array for name, array in {**held, **changed}.items() if array is not None})
    return held


def test_features_are_standardised_by_what_is_trained_on(tmp_path):
    held = write_features(tmp_path / "f.npz")
    found = multiple_features(tmp_path / "f.npz", kinds=("fou", "pix"), test_per_class=1, seed=3)
    vectors, pictures = found.train.inputs
    assert torch.bincount(found.test.labels).tolist() == [1] * 10 and pictures.shape == (30, 1, 16, 15)
    assert vectors.mean(dim=0).abs().max() < 1e-5 and (vectors.std(dim=0) - 1).abs().max() < 1e-5
    # Undone with the training statistics, every sample is one of the file's.
    whole = torch.from_numpy(held["fou"]).float()
    keys = {tuple(row) for row in torch.from_numpy(held["pix"]).float().tolist()}
    scale = held["pix"].max()
    assert all(tuple((row * scale).round().tolist()) in keys for row in pictures.flatten(1))
    train = [
        int((torch.from_numpy(held["pix"]).float() - row * scale).abs().sum(1).argmin()) for row in pictures.flatten(1)
    ]
    mean, std = whole[train].mean(dim=0), whole[train].std(dim=0)
    assert torch.allclose(vectors, (whole[train] - mean) / std, atol=1e-5)
    test = [n for n in range(40) if n not in train]
    assert torch.allclose(found.test.inputs[0], (whole[test] - mean) / std, atol=1e-5)
    other = multiple_features(tmp_path / "f.npz", kinds=("fou", "pix"), test_per_class=1, seed=4)
    assert not torch.equal(other.test.inputs[0], found.test.inputs[0])


@pytest.mark.parametrize(
    ("changed", "options", "parts"),
    [
        ({"labels": np.arange(40, dtype=np.uint8)}, {}, ("10 digits",)),
        ({"labels": np.zeros(40, np.uint8)}, {}, ("10 digits",)),
        ({"fou": np.full((40, 76), np.nan)}, {}, ("'fou'", "not finite")),
        ({"fou": np.zeros((40, 75))}, {}, ("(40, 75)",)),
        ({"fou": None}, {}, ("'fou'",)),
        ({}, {"test_per_class": 4}, ("test_per_class=4", "pass 1 to 3")),
        ({}, {"test_per_class": 0}, ("test_per_class=0",)),
    ],
)
def test_damaged_features_are_refused(tmp_path, refuses, changed, options, parts):
    write_features(tmp_path / "f.npz", **changed)
    with refuses(*parts):
        multiple_features(tmp_path / "f.npz", **{"test_per_class": 1, **options})


def test_the_public_sets_are_found(public_sets):
    found = read_samples("cifar10", limit=30)
    assert found.train.inputs.shape == (30, 3, 32, 32) and "JPEG copies" in str(found)
    assert len(found.test) == 10000 and torch.bincount(found.train.labels).tolist() == [3] * 10
    assert len(read_samples("mfeat").train) == 1500
