"""Folders of pictures and label pictures: every kind of label picture, Cityscapes, and pairs that do not fit."""

import numpy as np
import pytest
import torch
from PIL import Image

from poise.data import VOID, EncodedLabelMaps, EncodedPictures, cityscapes, read_samples, segmentation_folders
from tests.data.label_pictures import CLASSES, KINDS, palette, values, write_camvid, write_table


def with_one_unknown(path):
    array = values()
    array[2, 3] = 77
    Image.fromarray(array).save(path)


@pytest.mark.parametrize("kind", KINDS)
def test_label_pictures_of_every_kind_are_the_same_maps(tmp_path, kind):
    held = write_camvid(tmp_path, kind)
    found = read_samples(str(tmp_path))
    assert found.train.class_names == ("sky", "road", "car") and len(found.valid) == len(found.test) == 3
    assert isinstance(found.train.inputs, EncodedPictures) and isinstance(found.train.labels, EncodedLabelMaps)
    batch = found.train.restrict(torch.tensor([2, 0, 1])).select(torch.tensor([1, 2]))
    assert batch.labels.dtype == torch.int64 and batch.per_pixel
    for row, place in enumerate((0, 1)):
        picture, labels = held["train", place]
        assert np.array_equal(batch.labels[row].numpy(), CLASSES[labels])
        assert np.array_equal(batch.inputs[row].permute(1, 2, 0).numpy(), picture)


def test_a_palette_is_read_by_its_colours_where_the_table_has_colours(tmp_path):
    held = write_camvid(tmp_path, "palette", suffix="_L")
    (tmp_path / "classes.txt").unlink()
    write_table(tmp_path, colours=True)
    found = segmentation_folders(tmp_path)
    assert np.array_equal(found.test.select(slice(1)).labels[0].numpy(), CLASSES[held["test", 0][1]])


def test_pictures_and_labels_are_cut_and_resampled_alike(tmp_path):
    # Blocks of 4 x 4 of two classes, the one black and the other white: most of a small pixel is of its own block.
    blocks = values((6, 10)) // 2 * 3
    labels = blocks.repeat(4, 0).repeat(4, 1)
    write_camvid(tmp_path, parts=("train", "test"), number=1, shape=labels.shape)
    Image.fromarray(labels * 85).save(tmp_path / "train" / "00.png")
    Image.fromarray(labels).save(tmp_path / "trainannot" / "00.png")
    batch = read_samples(str(tmp_path), size=(6, 6)).train.select(slice(None))
    middle = blocks[:, 2:8]
    assert np.array_equal(batch.labels[0].numpy(), CLASSES[middle])
    assert np.array_equal(batch.inputs[0].numpy() > 127, np.stack([middle == 3] * 3))


def spoil_label(name, write):
    def spoil(folder):
        write(folder / "trainannot" / name)

    return spoil


def truncated(path):
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    ("kind", "spoil", "parts"),
    [
        ("grey", spoil_label("01.png", lambda path: path.unlink()), ("01.png", "has no label", "trainannot")),
        (
            "grey",
            spoil_label("01.png", lambda path: Image.fromarray(values((5, 6))).save(path)),
            ("01.png", "is 5x6", "its picture 5x7"),
        ),
        (
            "grey",
            spoil_label("02.png", with_one_unknown),
            ("02.png", "the value 77 at (2, 3)", "class table"),
        ),
        (
            "rgb",
            spoil_label("02.png", lambda path: Image.new("RGB", (7, 5), (1, 2, 3)).save(path)),
            ("02.png", "the colour (1, 2, 3) at (0, 0)"),
        ),
        ("grey", spoil_label("02.png", lambda path: palette(values()).convert("RGB").save(path)), ("kind RGB",)),
        ("grey", spoil_label("01.png", truncated), ("01.png", "cannot be decoded")),
        ("grey", lambda folder: truncated(folder / "train" / "01.png"), ("01.png", "cannot be decoded")),
        ("grey", spoil_label("01.png", lambda path: path.write_bytes(b"no picture")), ("01.png", "cannot be decoded")),
        ("grey", lambda folder: [path.unlink() for path in (folder / "test").iterdir()], ("test", "holds no picture")),
        ("grey", lambda folder: (folder / "classes.txt").unlink(), ("no class table", "classes.txt")),
        ("grey", lambda folder: write_table(folder, colours=True), ("classes.txt and label_colors.txt",)),
        ("grey", lambda folder: (folder / "classes.txt").write_text("a\n\nb\n"), ("classes.txt", "class 2", "no name")),
        (
            "rgb",
            lambda folder: (folder / "label_colors.txt").write_text("1 2 x sky"),
            ("label_colors.txt", "line 1", "names no colour"),
        ),
        ("grey", lambda folder: (folder / "classes.txt").write_text("\n"), ("classes.txt", "names 0 classes")),
        (
            "rgb",
            lambda folder: (folder / "label_colors.txt").write_text("1 2 3"),
            ("label_colors.txt", "class 1", "no name"),
        ),
    ],
)
def test_folders_of_pairs_that_do_not_fit_are_refused(tmp_path, refuses, kind, spoil, parts):
    write_camvid(tmp_path, kind)
    spoil(tmp_path)
    with refuses(*parts):
        found = read_samples(str(tmp_path))
        assert len(found.train.select(slice(1))) == 1  # what is before the damage can be had
        found.train.select(slice(None))


def write_cityscapes(folder):
    for part, cities in (("train", ("aachen", "bochum")), ("val", ("lindau",))):
        for city in cities:
            pictures, labels = folder / "leftImg8bit" / part / city, folder / "gtFine" / part / city
            pictures.mkdir(parents=True)
            labels.mkdir(parents=True)
            ids = np.array([[7, 33, 0], [255, 31, 19]], np.uint8)
            Image.new("RGB", (3, 2)).save(pictures / f"{city}_000000_000019_leftImg8bit.png")
            Image.fromarray(ids).save(labels / f"{city}_000000_000019_gtFine_labelIds.png")
            Image.new("RGB", (3, 2)).save(labels / f"{city}_000000_000019_gtFine_color.png")


def test_cityscapes_maps_its_ids_to_19_classes(tmp_path, refuses):
    write_cityscapes(tmp_path)
    found = read_samples(str(tmp_path))
    assert (len(found.train), len(found.test), found.valid) == (2, 1, None)
    assert len(found.train.class_names) == 19 and found.train.class_names[13] == "car"
    assert found.train.select(slice(None)).labels.tolist() == [[[0, 18, VOID], [VOID, 16, 6]]] * 2
    label = tmp_path / "gtFine" / "train" / "bochum" / "bochum_000000_000019_gtFine_labelIds.png"
    Image.fromarray(np.full((2, 3), 34, np.uint8)).save(label)
    with refuses("bochum", "the value 34"):
        cityscapes(tmp_path).train.select(slice(None))
    label.unlink()
    with refuses("bochum", "has no label", "labelIds"):
        cityscapes(tmp_path)


def test_a_size_is_for_folders(refuses):
    with refuses("size=(8, 8)", "'digits'"):
        read_samples("digits", size=(8, 8))


def test_the_public_street_scenes(public_sets):
    found = read_samples("camvid", limit=20)
    assert (len(found.train), len(found.valid), len(found.test)) == (20, 101, 233)
    assert found.test.inputs.shape == (233, 3, 120, 160) and found.test.class_names[-1] == "bicyclist"
    assert set(found.test.labels.unique().tolist()) == {*range(11), VOID}
