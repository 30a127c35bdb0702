"""Samples and their parts, in memory or still encoded."""

import io
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from poise.data import DataError, EncodedPictures, Samples, SampleSplits, packed_pictures
from poise.data.encoded_pictures import SeparateFiles, encoded


@dataclass
class Counted:
    """Pictures in memory that remember which of them were read."""

    files: list
    asked: list = field(default_factory=list)

    def read(self, place):
        self.asked.append(place)
        return self.files[place]

    def name(self, place):
        return f"picture {place}"


def file_of(array, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def arrays(number=6, height=5, width=7):
    return np.random.default_rng(0).integers(0, 256, (number, height, width, 3), dtype=np.uint8)


def splits(number, classes):
    labels = torch.arange(number) % classes
    whole = Samples(torch.arange(number), labels, tuple(map(str, range(classes))))
    return SampleSplits(whole, whole)


@given(classes=st.integers(1, 5), per_class=st.integers(1, 6), extra=st.integers(0, 9), seed=st.integers(0, 2**31))
def test_samples_held_out_are_balanced_and_leave_training(classes, per_class, extra, seed):
    whole = splits(classes * per_class + extra, classes)
    parts = whole.hold_out(per_class, torch.Generator().manual_seed(seed))
    assert torch.bincount(parts.valid.labels).tolist() == [per_class] * classes
    together = torch.cat([parts.train.inputs, parts.valid.inputs])
    assert torch.equal(together.sort().values, whole.train.inputs)  # nothing lost, nothing twice
    assert torch.equal(parts.train.inputs, parts.train.inputs.sort().values)  # the order stays
    again = whole.hold_out(per_class, torch.Generator().manual_seed(seed))
    assert torch.equal(parts.valid.inputs, again.valid.inputs) and parts.test is whole.test


def test_holding_out_twice_or_too_many_is_refused(refuses):
    parts = splits(20, 2).hold_out(2, torch.Generator().manual_seed(0))
    with refuses("4 samples to validate on already"):
        parts.hold_out(2, torch.Generator())
    with refuses("has 8 samples, not 9"):
        SampleSplits(parts.train, parts.test).hold_out(9, torch.Generator().manual_seed(0))


def test_several_kinds_of_input_are_selected_together():
    samples = Samples((torch.arange(4), torch.arange(4) * 10), torch.tensor([0, 1, 0, 1]), ("a", "b"))
    first, second = samples.select(torch.tensor([3, 1])).inputs
    assert first.tolist() == [3, 1] and second.tolist() == [30, 10]
    assert [len(part) for part in samples.batches(3)] == [3, 1]
    assert torch.equal(torch.cat([part.inputs[1] for part in samples.batches(3)]), samples.inputs[1])


@pytest.mark.parametrize(
    ("inputs", "labels", "names", "parts"),
    [
        (torch.zeros(3), torch.zeros(2).long(), ("a",), ("[3] inputs and 2 labels",)),
        ((), torch.zeros(2).long(), ("a",), ("[] inputs",)),
        (torch.zeros(2), torch.zeros(2), ("a",), ("float32", "(2,)")),
        (torch.zeros(2), torch.zeros(2, 1).long(), ("a",), ("(2, 1)",)),
        (torch.zeros(2), torch.tensor([0, 2]), ("a", "b"), ("from 0 to 2", "2 classes")),
        (torch.zeros(2), torch.tensor([-1, 0]), ("a", "b"), ("from -1 to 0",)),
        (torch.zeros(2), torch.tensor([0, 0]), ("a", "a"), ("repeat",)),
    ],
)
def test_samples_that_do_not_fit_are_refused(refuses, inputs, labels, names, parts):
    with refuses(*parts):
        Samples(inputs, labels, names)


def test_parts_with_other_classes_are_refused_and_a_set_says_what_it_is(refuses):
    one = Samples(torch.zeros(2000, 3), torch.zeros(2000).long(), ("a",))
    with refuses("('a',)", "('b',)"):
        SampleSplits(one, Samples(torch.zeros(1, 3), torch.zeros(1).long(), ("b",)))
    assert str(SampleSplits(one, one, source="a folder")) == (
        "2,000 samples to train on, 2,000 to test on; from a folder"
    )
    assert repr(one) == "Samples(2,000 of (3,) float32, 1 classes)"


def test_encoded_pictures_are_decoded_when_selected_and_not_before():
    held = arrays()
    source = Counted([file_of(array) for array in held])
    samples = Samples(encoded(source, 6), torch.arange(6) % 2, ("a", "b"))
    source.asked.clear()  # the first one tells the size
    parts = SampleSplits(samples, samples).hold_out(1, torch.Generator().manual_seed(0))
    assert isinstance(parts.train.inputs, EncodedPictures) and not source.asked
    assert repr(samples) == "Samples(6 of (3, 5, 7) uint8, 2 classes)"
    batch = samples.restrict(torch.tensor([5, 0, 3])).select(torch.tensor([2, 0]))
    assert source.asked == [3, 5]
    assert batch.inputs.dtype == torch.uint8
    assert torch.equal(batch.inputs, torch.from_numpy(held[[3, 5]]).permute(0, 3, 1, 2))
    assert torch.equal(torch.cat([part.inputs for part in samples.batches(4)]), samples.inputs[:])


def test_pictures_are_brought_to_a_size_as_pillow_does():
    held = np.random.default_rng(1).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    pictures = encoded(Counted([file_of(held)]), 1, size=(16, 24))
    # By hand: 60 of 64 columns have the proportions of 24:16, the middle ones.
    box = (2, 0, 62, 40)
    expected = np.asarray(Image.fromarray(held).resize((24, 16), Image.Resampling.BICUBIC, box=box))
    assert torch.equal(pictures[:][0].permute(1, 2, 0), torch.from_numpy(expected.copy()))


def test_a_picture_is_upright_and_grey_becomes_rgb():
    held = arrays(1, 6, 4)[0]
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was turned by 90 degrees
    sideways, grey = file_of(held, exif=turned), file_of(held[..., 0])
    upright = encoded(Counted([sideways]), 1)
    assert upright.size == (4, 6)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(sideways)))
    assert torch.equal(upright[:][0].permute(1, 2, 0), torch.from_numpy(np.array(expected)))
    assert torch.equal(encoded(Counted([grey]), 1)[:][0], torch.from_numpy(held[..., 0].copy()).expand(3, -1, -1))


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (lambda data: data[: len(data) // 2], ("picture 1", "cannot be decoded")),
        (lambda data: b"GIF89a" + data, ("picture 1", "cannot be decoded")),
        (lambda data: file_of(arrays(1, 9, 9)[0]), ("picture 1", "9x9, not 5x7")),
    ],
)
def test_damaged_pictures_are_refused_when_they_are_decoded(refuses, damage, parts):
    first, second = (file_of(array) for array in arrays(2))
    pictures = encoded(Counted([first, damage(second)]), 2)
    assert len(pictures[:1]) == 1
    with refuses(*parts):
        pictures[:]
    with refuses("size=(0, 4)"):
        encoded(Counted([first]), 1, size=(0, 4))


def test_a_file_that_went_is_named(tmp_path, refuses):
    path = tmp_path / "a.png"
    path.write_bytes(file_of(arrays()[0]))
    pictures = encoded(SeparateFiles((path,)), 1)
    path.unlink()
    with refuses("a.png"):
        pictures[:]


@pytest.mark.parametrize("lazy", [False, True])
def test_a_packed_file_is_the_same_lazy_and_not(tmp_path, lazy):
    files = [file_of(array, "JPEG", quality=95) for array in arrays()]
    for name in ("train", "test"):
        np.savez(
            tmp_path / f"{name}.npz",
            jpeg=np.frombuffer(b"".join(files), np.uint8),
            offsets=np.cumsum([0, *map(len, files)]),
            labels=np.arange(6, dtype=np.uint8) % 2,
            class_names=np.array(["cat", "dog"]),
        )
    found = packed_pictures(tmp_path, limit=4, lazy=lazy)
    assert len(found.train) == 4 and len(found.test) == 6 and isinstance(found.train.inputs, EncodedPictures) == lazy
    expected = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in files[:4]])
    assert torch.equal(found.train.select(slice(None)).inputs, torch.from_numpy(expected).permute(0, 3, 1, 2))
    assert str(tmp_path) in str(found) and "JPEG copies" in str(found)


def test_the_errors_of_sets_are_one_kind():
    with pytest.raises(DataError):
        splits(4, 2).train.few(9, torch.Generator())
    with pytest.raises(DataError, match="size=0"):
        splits(4, 2).train.batches(0)
