"""A class at each pixel: samples with label maps, packed and encoded maps, and what does not fit together."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from poise.data import ClassTable, EncodedLabelMaps, Samples, SampleSplits, packed_pictures
from poise.data.encoded_pictures import SeparateFiles
from tests.data.label_pictures import CLASSES, NAMES, values, write_camvid


def packed(path, labels, number=3, shape=(8, 8)):
    files = []
    for place in range(number):
        buffer = io.BytesIO()
        Image.fromarray(np.full((*shape, 3), 40 * place, np.uint8)).save(buffer, "JPEG")
        files.append(buffer.getvalue())
    np.savez(
        path,
        jpeg=np.frombuffer(b"".join(files), np.uint8),
        offsets=np.cumsum([0, *map(len, files)]),
        labels=labels,
        class_names=np.array(NAMES),
    )


@pytest.mark.parametrize("valid", [None, "val", "valid"])
def test_packed_label_maps(tmp_path, refuses, valid):
    labels = values((3, 8, 8))
    for name in ("train", "test", *([valid] if valid else [])):
        packed(tmp_path / f"{name}.npz", labels)
    found = packed_pictures(tmp_path, limit=2, lazy=True)
    assert len(found.train) == 2 and (found.valid is None) == (valid is None)
    assert np.array_equal(found.train.select(slice(None)).labels.numpy(), CLASSES[labels[:2]])
    packed(tmp_path / "train.npz", np.full((3, 8, 8), 9, np.uint8))
    with refuses("train.npz", "the value 9"):
        packed_pictures(tmp_path)
    packed(tmp_path / "train.npz", values((3, 8, 4)))
    with refuses("label maps of 8x4", "pictures of 8x8"):
        packed_pictures(tmp_path)


def test_samples_with_both_kinds_of_labels_are_selected_together(refuses):
    maps = torch.from_numpy(CLASSES[values((4, 2, 2))])
    both = Samples(torch.arange(4), maps, ("a", "b", "c"), torch.tensor([1, 0, 1, 0]), ("day", "night"))
    picked = both.select(torch.tensor([2, 1]))
    assert picked.scene_labels.tolist() == [1, 0] and torch.equal(picked.labels, maps[[2, 1]].long())
    assert torch.equal(torch.cat([part.labels for part in both.batches(3)]), maps.long())
    assert both.restrict(slice(1)).labels.dtype == torch.uint8
    assert repr(both) == "Samples(4 of () int64, 3 classes at each pixel, 2 of the whole)"
    whole = SampleSplits(both, both).by_scene()
    assert whole.train.class_names == ("day", "night") and torch.equal(whole.train.labels, both.scene_labels)
    assert whole.train.by_scene() is whole.train and len(whole.hold_out(1, torch.Generator()).valid) == 2
    with refuses("none of the whole"):
        Samples(torch.arange(4), maps, ("a", "b", "c")).by_scene()
    with refuses("no one class"):
        both.few(1, torch.Generator())


@pytest.mark.parametrize(
    ("labels", "names", "scene", "parts"),
    [
        (torch.full((2, 3, 3), 4, dtype=torch.uint8), ("a", "b"), None, ("from 4 to 4", "255 for void")),
        (torch.full((2, 3, 3), -1), ("a", "b"), None, ("from -1",)),
        (torch.zeros(2, 3, 3, dtype=torch.int32), ("a", "b"), None, ("int32", "(2, 3, 3)")),
        (torch.zeros(2, dtype=torch.int64), ("a",), torch.zeros(2, dtype=torch.int64), ("beside each label map",)),
        (torch.zeros(2, 3, 3).byte(), ("a",), torch.zeros(3, dtype=torch.int64), ("(3,)", "beside each label map")),
        (torch.zeros(2, 3, 3).byte(), ("a",), torch.tensor([0, 1]), ("from 0 to 1", "1 classes")),
    ],
)
def test_label_maps_that_do_not_fit_are_refused(refuses, labels, names, scene, parts):
    with refuses(*parts):
        Samples(torch.zeros(2, 1, 3, 3), labels, names, scene, ("day",) if scene is not None else ())


def test_a_label_map_has_the_size_of_its_picture(refuses):
    maps = torch.zeros(2, 3, 3).byte()
    with refuses("label maps of (3, 3)", "pictures of (3, 4)"):
        Samples(torch.zeros(2, 1, 3, 4), maps, ("a",))
    assert len(Samples((torch.zeros(2, 5), torch.zeros(2, 1, 3, 3)), maps, ("a",))) == 2  # features beside pictures


def test_parts_have_the_same_classes_of_the_whole(refuses):
    maps = torch.zeros(2, 3, 3).byte()
    day, night = (Samples(torch.zeros(2), maps, ("a",), torch.zeros(2).long(), (name,)) for name in ("day", "night"))
    with refuses("('day',)", "('night',)"):
        SampleSplits(day, night)


def test_encoded_labels_have_the_classes_of_their_table(tmp_path, refuses):
    write_camvid(tmp_path, parts=("train",))
    files = SeparateFiles(tuple(sorted((tmp_path / "trainannot").iterdir())))
    maps = EncodedLabelMaps(files, torch.arange(3), (5, 7), table=ClassTable.numbered(NAMES))
    assert repr(maps) == "EncodedLabelMaps(3 of (5, 7))"
    with refuses("('sky', 'road', 'car')", "('sky',)"):
        Samples(torch.zeros(3, 1), maps, ("sky",))
