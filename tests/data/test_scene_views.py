"""Views of pictures with their label maps, and cuts for classification, each against a per-sample oracle."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from poise.data import (
    VOID,
    ColourJitter,
    Composed,
    ComposedScenes,
    HorizontalFlip,
    Normalise,
    RandomCrop,
    RandomScaledCrop,
    SceneFlip,
    cifar_views,
    segmentation_views,
)
from tests.data.pictures import seeded


def scenes(batch=6, height=9, width=11, dtype=torch.float32):
    x = torch.rand(batch, 3, height, width, generator=seeded(7), dtype=dtype)
    return x, torch.randint(11, (batch, height, width), generator=seeded(8))


VIEWS = [
    RandomScaledCrop((7, 8)),
    SceneFlip(),
    ComposedScenes((RandomScaledCrop((12, 6), (0.7, 1.1)), SceneFlip()), (ColourJitter(),)),
    segmentation_views((8, 8)),
]


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_the_seed_decides_and_samples_are_apart(view):
    x, labels = scenes(batch=8)
    before, state = (x.clone(), labels.clone()), torch.get_rng_state()
    first, again, other = view(x, labels, seeded(1)), view(x, labels, seeded(1)), view(x, labels, seeded(2))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])
    assert torch.equal(x, before[0]) and torch.equal(labels, before[1])
    assert torch.equal(torch.get_rng_state(), state) and pickle.loads(pickle.dumps(view)) == view
    others, other_labels = 1 - x, 10 - labels
    others[3], other_labels[3] = x[3], labels[3]
    alone = view(others, other_labels, seeded(1))
    assert torch.allclose(alone[0][3], first[0][3], atol=1e-6) and torch.equal(alone[1][3], first[1][3])


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_bytes_are_the_same_as_their_numbers_and_nothing_is_no_trouble(view):
    x, labels = scenes()
    given_bytes = (255 * x).round().to(torch.uint8)
    made, made_labels = view(given_bytes, labels.byte(), seeded(1))
    again, again_labels = view(given_bytes.float() / 255, labels, seeded(1))
    assert torch.equal(made, again) and made_labels.dtype == torch.uint8 and again_labels.dtype == torch.int64
    assert torch.equal(made_labels.long(), again_labels)
    assert len(view(x[:0], labels[:0], seeded())[1]) == 0


@given(
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    size=st.tuples(st.integers(1, 18), st.integers(1, 18)),
    scale=st.sampled_from([(0.5, 2.0), (0.5, 0.5), (1.0, 1.0), (2.0, 2.0), (0.1, 0.4)]),
    seed=st.integers(0, 99),
)
def test_labels_are_cut_from_the_nearest_resampling(height, width, size, scale, seed):
    x = 0.4 + 0.2 * scenes(4, height, width, torch.float64)[0]  # far from 0, which is the padding
    labels = torch.arange(height * width).view(1, height, width).expand(4, -1, -1) % VOID
    made, found = RandomScaledCrop(size, scale)(x, labels, seeded(seed))
    assert made.shape == (4, 3, *size) and made.isfinite().all() and made.min() >= 0 and made.max() <= 1
    assert torch.equal(made.abs().sum(dim=1) == 0, found == VOID)  # padded alike
    for sample in range(4):
        assert any(torch.equal(found[sample], expected) for expected in every_cut(labels[sample], size, scale)), (
            "no cut of any scaled label map"
        )


def every_cut(labels, size, scale):
    """All cuts of a label map in all sizes that the factors give, nearest by exact division, padded with void."""
    height, width = labels.shape
    sizes = {(max(1, round(height * f)), max(1, round(width * f))) for f in np.linspace(*scale, 400)}
    for tall, wide in sizes:
        rows = [(2 * i + 1) * height // (2 * tall) for i in range(tall)]
        columns = [(2 * j + 1) * width // (2 * wide) for j in range(wide)]
        scaled = labels[rows][:, columns]
        padded = torch.full((tall + 2 * size[0], wide + 2 * size[1]), VOID)
        padded[size[0] : size[0] + tall, size[1] : size[1] + wide] = scaled
        for top in range(min(0, tall - size[0]), max(0, tall - size[0]) + 1):
            for left in range(min(0, wide - size[1]), max(0, wide - size[1]) + 1):
                yield padded[size[0] + top :, size[1] + left :][: size[0], : size[1]]


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_pictures_are_resampled_as_pillow_does(factor):
    x, labels = scenes(3, 12, 16)
    size = round(12 * factor), round(16 * factor)
    made, _ = RandomScaledCrop(size, (factor, factor))(x, labels, seeded())
    for sample, channel in np.ndindex(3, 3):
        expected = Image.fromarray(x[sample, channel].numpy()).resize(size[::-1], Image.Resampling.BICUBIC)
        assert np.allclose(made[sample, channel].numpy(), np.clip(np.asarray(expected), 0, 1), atol=2e-5)


@pytest.mark.parametrize("factor", [0.6, 1.0, 2.0])
def test_a_cut_is_one_of_the_picture_that_pillow_has_scaled(factor):
    x, labels = scenes(8, 12, 16)
    made, _ = RandomScaledCrop((5, 6), (factor, factor))(x, labels, seeded())
    for sample in range(8):
        scaled = Image.fromarray(x[sample, 0].numpy()).resize(
            (round(16 * factor), round(12 * factor)), Image.Resampling.BICUBIC
        )
        cuts = np.lib.stride_tricks.sliding_window_view(np.clip(np.asarray(scaled), 0, 1), (5, 6))
        assert np.abs(cuts - made[sample, 0].numpy()).max(axis=(2, 3)).min() < 2e-5


def test_picture_and_labels_go_to_the_same_place():
    # The picture is the label: a class's grey in large areas, so that most pixels survive the resampling.
    labels = torch.randint(4, (40, 3, 4), generator=seeded()).repeat_interleave(16, 1).repeat_interleave(16, 2)
    x = labels.unsqueeze(1).float() / 4 + 0.25
    made, found = segmentation_views((40, 40), Normalise((0.0,), (1.0,)))(x, labels, seeded(3))
    seen = torch.where(found == VOID, made[:, 0] == 0, ((made[:, 0] - 0.25) * 4).round() == found).float().mean()
    assert seen > 0.9 and 0 < (found == VOID).float().mean() < 0.5


def test_scales_and_places_have_their_ranges():
    labels = torch.zeros(3000, 10, 10, dtype=torch.uint8)
    _, found = RandomScaledCrop((40, 40), (0.5, 2.0))(labels.unsqueeze(1), labels, seeded())
    rows, columns = (found != VOID).any(dim=2), (found != VOID).any(dim=1)
    assert torch.equal(rows.sum(dim=1), columns.sum(dim=1))
    sides = rows.sum(dim=1)
    assert sides.min() == 5 and sides.max() == 20
    counts = torch.bincount(sides)[6:20]  # the ends are half as likely
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    first = rows.float().argmax(dim=1)
    place = first / (40 - sides)
    assert place.min() == 0 and place.max() == 1 and abs(place.mean() - 0.5) < 0.02


def test_flips_take_both_or_none():
    x, labels = scenes(batch=400, height=2, width=3)
    made, found = SceneFlip(0.25)(x, labels, seeded())
    flipped = (made == x.flip(3)).flatten(1).all(dim=1)
    assert torch.equal(found[flipped], labels[flipped].flip(2)) and torch.equal(found[~flipped], labels[~flipped])
    assert torch.equal(made[~flipped], x[~flipped]) and 70 < int(flipped.sum()) < 130
    assert torch.equal(made, HorizontalFlip(0.25)(x, seeded()))


def test_colours_leave_the_labels():
    x, labels = scenes()
    made, found = ComposedScenes((), (ColourJitter(probability=1.0),))(x, labels, seeded(1))
    assert torch.equal(found, labels) and torch.equal(made, ColourJitter(probability=1.0)(x, seeded(1)))


@given(
    height=st.integers(1, 9), width=st.integers(1, 9), padding=st.integers(0, 4),
    size=st.integers(1, 9) | st.tuples(st.integers(1, 9), st.integers(1, 9)), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_cut_lies_in_the_padded_picture(height, width, padding, size, seed):
    x = torch.arange(1.0, height * width + 1).view(1, 1, height, width).expand(30, 1, -1, -1)
    view = RandomCrop(size, padding)
    tall, wide = size if isinstance(size, tuple) else (size, size)
    if tall > height + 2 * padding or wide > width + 2 * padding:
        with pytest.raises(ValueError, match=f"padded picture of {height}x{width}"):
            view(x, seeded(seed))
        return
    padded = torch.nn.functional.pad(x[0, 0], (padding,) * 4)
    every = padded.unfold(0, tall, 1).unfold(1, wide, 1).reshape(-1, tall * wide)
    assert view(x, seeded(seed)).shape == (30, 1, tall, wide)
    made = view(x, seeded(seed)).flatten(1)
    assert (made[:, None] == every[None]).all(dim=2).any(dim=1).all()
    assert torch.equal(made, view(x, seeded(seed)).flatten(1))


def test_every_cut_is_as_likely():
    x = torch.arange(1.0, 10).view(1, 1, 3, 3).expand(9000, 1, -1, -1)
    _, counts = RandomCrop(3, 1)(x, seeded()).flatten(1).unique(dim=0, return_counts=True)
    assert len(counts) == 9 and stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert len(RandomCrop(2)(x[:1].expand(200, -1, -1, -1), seeded()).flatten(1).unique(dim=0)) == 4


def test_the_published_views():
    cifar = Normalise((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    assert cifar_views() == Composed((RandomCrop(32, 4), HorizontalFlip(0.5), cifar))
    view = segmentation_views((64, 96))
    assert view.geometric == (RandomScaledCrop((64, 96), (0.5, 2.0)), SceneFlip(0.5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomCrop(0), "size=0"),
        (lambda: RandomCrop((3, 0)), "size=0"),
        (lambda: RandomCrop(3, -1), "padding=-1"),
        (lambda: RandomScaledCrop((4, 0)), "size=0"),
        (lambda: RandomScaledCrop((4, 4), (2.0, 0.5)), "the smaller first"),
        (lambda: SceneFlip(2.0), "probability=2.0"),
        (lambda: SceneFlip()(*scenes()[:1], scenes()[1][:2], seeded()), r"shape \(2, 9, 11\)"),
        (lambda: SceneFlip()(scenes()[0], scenes()[0][:, 0], seeded()), "float32"),
        (lambda: RandomScaledCrop((4, 4))(2 * scenes()[0], scenes()[1], seeded()), "0 to 1"),
    ],
)
def test_what_makes_no_view_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
