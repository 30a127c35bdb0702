"""What every view does and leaves alone, and what is refused."""

import pickle

import pytest
import torch

from poise.data import (
    ColourJitter,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    Masking,
    Noise,
    Normalise,
    Placed,
    RandomCrop,
    RandomResizedCrop,
    Scaling,
    Shift,
    Solarise,
    SpanMasking,
    vicreg_cifar_views,
    vicreg_views,
)
from tests.data.pictures import pictures, seeded

PICTURE_VIEWS = [
    RandomResizedCrop(8),
    HorizontalFlip(0.5),
    ColourJitter(),
    Grayscale(0.5),
    GaussianBlur(probability=0.7),
    Solarise(probability=0.5),
    Placed(side=13, noise=0.1),
    *vicreg_views(8),
    vicreg_cifar_views(8)[0],
    RandomCrop(8, 2),
    RandomCrop((5, 9), 1),
]
VECTOR_VIEWS = [Noise(), Masking(), SpanMasking(5), Shift(4), Shift(4, wrap=True), Scaling()]
VIEWS = [*PICTURE_VIEWS, *VECTOR_VIEWS]


# What holds for every view.


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_the_seed_decides_and_nothing_else_is_touched(view):
    x = pictures()
    before, state = x.clone(), torch.get_rng_state()
    first, again, other = view(x, seeded(1)), view(x, seeded(1)), view(x, seeded(2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(x, before) and torch.equal(torch.get_rng_state(), state)
    assert pickle.loads(pickle.dumps(view)) == view and hash(view) == hash(pickle.loads(pickle.dumps(view)))


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_a_sample_does_not_depend_on_what_its_neighbours_hold(view):
    x = pictures(batch=8)
    whole = view(x, seeded(1))
    for kept in (0, 3, 7):
        others = 1 - x
        others[kept] = x[kept]
        assert torch.allclose(view(others, seeded(1))[kept], whole[kept], atol=1e-6)


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_each_sample_draws_its_own(view):
    same = pictures(batch=1).expand(64, -1, -1, -1)
    made = view(same, seeded(1)).flatten(1)
    # Some views leave samples as they are, so not all need differ.
    assert len(made.unique(dim=0)) > 1


@pytest.mark.parametrize("view", PICTURE_VIEWS, ids=str)
def test_bytes_are_the_same_as_their_numbers(view):
    x = (255 * pictures()).round().to(torch.uint8)
    made = view(x, seeded(1))
    assert made.dtype == torch.float32 and torch.equal(made, view(x.float() / 255, seeded(1)))
    double = view(x.double() / 255, seeded(1))
    assert double.dtype == torch.float64 and torch.allclose(double.float(), made, atol=1e-5)
    assert view((x.float() / 255).half(), seeded(1)).dtype == torch.float32


@pytest.mark.parametrize("view", PICTURE_VIEWS[:6], ids=str)
def test_pictures_stay_in_their_range(view):
    x = pictures(batch=32).round()  # black and white: what overshoots most
    made = view(x, seeded(1))
    assert made.min() >= 0 and made.max() <= 1 + 1e-6 and made.isfinite().all()


@pytest.mark.parametrize("view", [*PICTURE_VIEWS, *VECTOR_VIEWS], ids=str)
def test_no_sample_is_no_trouble(view):
    assert len(view(torch.empty(0, 3, 9, 11), seeded())) == 0


# What is refused.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomResizedCrop(0), "size=0"),
        (lambda: RandomResizedCrop(8, scale=(0.5, 0.2)), "the smaller first"),
        (lambda: RandomResizedCrop(8, scale=(0.5, 1.2)), "up to 1"),
        (lambda: RandomResizedCrop(8, ratio=(0.0, 1.0)), "ratio"),
        (lambda: HorizontalFlip(1.5), "probability=1.5"),
        (lambda: ColourJitter(hue=0.6), "hue=0.6"),
        (lambda: ColourJitter(contrast=-1), "contrast=-1"),
        (lambda: ColourJitter(probability=float("nan")), "probability=nan"),
        (lambda: Grayscale(-0.1), "probability=-0.1"),
        (lambda: GaussianBlur(sigma=(0.0, 1.0)), "sigma"),
        (lambda: Solarise(threshold=2), "threshold=2"),
        (lambda: Normalise((0.5,), (0.0,)), "std above 0"),
        (lambda: Normalise((0.5,), (0.1, 0.2)), "one of each"),
    ],
)
def test_settings_that_make_no_view_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("view", "x", "message"),
    [
        (HorizontalFlip(), torch.zeros(3, 8, 8), r"shape \(3, 8, 8\)"),
        (GaussianBlur(), torch.zeros(1, 3, 8, 8, dtype=torch.int64), "int64"),
        (ColourJitter(), torch.zeros(1, 1, 8, 8), "3 channels and got 1"),
        (Grayscale(), torch.zeros(1, 4, 8, 8), "3 channels and got 4"),
        (Normalise((0.5,), (0.5,)), torch.zeros(1, 3, 8, 8), "1 channels and got 3"),
        (RandomResizedCrop(8), torch.full((1, 3, 8, 8), 200.0), "to 200"),
        (ColourJitter(), torch.full((1, 3, 8, 8), -1.0), "from -1"),
        (RandomResizedCrop(8), torch.full((1, 3, 8, 8), float("nan")), "nan"),
    ],
)
def test_what_is_no_picture_is_refused(view, x, message):
    with pytest.raises(ValueError, match=message):
        view(x, seeded())
