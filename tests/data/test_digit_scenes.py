"""Scenes of digits: their labels are where the ink is, their parts share no digit."""

import numpy as np
import pytest
import torch

from poise.data import digit_scenes, digits, read_samples

SMALL = {"numbers": (120, 20, 20), "side": 40}


def test_the_scenes_are_a_set_of_both_kinds():
    found = read_samples("scenes")
    assert [len(part) for part in (found.train, found.valid, found.test)] == [2000, 250, 500]
    assert found.train.inputs.shape == (2000, 1, 48, 48) and found.train.inputs.dtype == torch.uint8
    assert found.train.class_names == (*map(str, range(10)), "background")
    assert found.train.scene_names == found.train.class_names[:10]
    shares = torch.bincount(found.train.labels.flatten().long(), minlength=11) / found.train.labels.numel()
    assert shares[:10].min() > 0.01 and 0.75 < shares[10] < 0.9
    counts = torch.bincount(found.train.scene_labels)
    assert counts.min() > 150
    assert found.by_scene().test.labels.shape == (500,)


def test_the_seed_decides_and_the_global_state_is_left():
    before = torch.get_rng_state()
    first, again, other = digit_scenes(**SMALL), digit_scenes(**SMALL), digit_scenes(**SMALL, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    for name in ("inputs", "labels", "scene_labels"):
        assert torch.equal(getattr(first.test, name), getattr(again.test, name))
    assert not torch.equal(first.test.inputs, other.test.inputs)


def test_the_large_digit_is_the_scene_and_every_pixel_of_ink_is_labelled():
    plain = digit_scenes(**SMALL, most=1, noise=0.0)
    for labels, scene in zip(plain.train.labels, plain.train.scene_labels, strict=True):
        assert set(labels.unique().tolist()) == {int(scene), 10}
    # By hand: the ink of a digit three times as large is nine pixels for each of its own.
    own = plain.test.labels[0] != 10
    sources = (digits().test.inputs[:, 0] >= 0.25).flatten(1).sum(dim=1) * 9
    matching = digits().test.labels[sources == int(own.sum())]
    assert int(plain.test.scene_labels[0]) in matching.tolist()
    # Ink is brighter than the ground that it is on.
    for picture, labels in zip(plain.test.inputs[:, 0].float(), plain.test.labels, strict=True):
        assert picture[labels != 10].mean() > picture[labels == 10].mean()


def test_most_scenes_have_several_digits_and_the_scene_is_one_of_them():
    found = digit_scenes(**SMALL)
    several = [len(labels.unique()) > 2 for labels in found.train.labels]
    assert 0.5 < np.mean(several) < 0.95
    for labels, scene in zip(found.train.labels, found.train.scene_labels, strict=True):
        assert int(scene) in labels.unique()


def test_no_digit_is_in_two_parts():
    plain = digit_scenes((1047, 250, 500), side=24, most=1, noise=0.0)

    def inks(part):
        # With the canvas as large as the digit, every digit of a part is seen once, at its place in no order.
        return {tuple(labels[::3, ::3].flatten().ne(10).tolist()) for labels in part.labels}

    def sources(pictures):
        return {tuple((picture >= 0.25).flatten().tolist()) for picture in pictures}

    every = digits()
    assert inks(plain.train) == sources(every.train.inputs[:1047])
    assert inks(plain.valid) == sources(every.train.inputs[1047:])
    assert inks(plain.test) == sources(every.test.inputs)


@pytest.mark.parametrize("options", [{"numbers": (1, 0, 1)}, {"side": 23}, {"most": 0}, {"noise": -0.1}])
def test_numbers_that_make_no_scene_are_refused(refuses, options):
    with refuses("make no scene", str(next(iter(options.values())))):
        digit_scenes(**options)
