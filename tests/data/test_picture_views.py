"""Views of pictures, each against a per-sample oracle: pillow, scipy, colorsys or a loop."""

import colorsys
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage, stats

from poise.data import ColourJitter, GaussianBlur, Grayscale, HorizontalFlip, Normalise, RandomResizedCrop, Solarise
from poise.data.views.blur import gaussian_blur
from poise.data.views.colour import (
    ADJUSTMENTS,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
)
from poise.data.views.geometry import resized_crop
from tests.data.pictures import pictures, seeded

# Cuts.


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    size=st.integers(1, 24),
    seed=st.integers(0, 999),
)
def test_a_cut_is_resampled_as_pillow_does(height, width, size, seed):
    generator = np.random.default_rng(seed)
    x = pictures(batch=4, height=height, width=width)
    tall, wide = generator.integers(1, height + 1, 4), generator.integers(1, width + 1, 4)
    top, left = generator.integers(0, height - tall + 1), generator.integers(0, width - wide + 1)
    made = resized_crop(x, *(torch.from_numpy(place) for place in (top, left, tall, wide)), size)
    for i, channel in itertools.product(range(4), range(3)):
        cut = Image.fromarray(x[i, channel].numpy()).crop((left[i], top[i], left[i] + wide[i], top[i] + tall[i]))
        expected = np.asarray(cut.resize((size, size), Image.Resampling.BICUBIC))
        assert np.allclose(made[i, channel].numpy(), expected, atol=2e-5)


def published_cut(generator, height, width, scale, ratio):
    """One sample by the published procedure, in a loop."""
    for _ in range(10):
        area = height * width * generator.uniform(*scale)
        shape = math.exp(generator.uniform(math.log(ratio[0]), math.log(ratio[1])))
        wide, tall = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < wide <= width and 0 < tall <= height:
            return generator.integers(0, height - tall + 1), generator.integers(0, width - wide + 1), tall, wide
    raise AssertionError


@pytest.mark.parametrize(("height", "width"), [(32, 32), (30, 44)])
def test_cuts_have_the_published_distribution(height, width):
    view = RandomResizedCrop(8)
    drawn = torch.stack(view.draw(torch.empty(4000, 3, height, width), seeded()), dim=1).numpy()
    generator = np.random.default_rng(0)
    expected = np.array([published_cut(generator, height, width, view.scale, view.ratio) for _ in range(4000)])
    top, left, tall, wide = drawn.T
    assert (top >= 0).all() and (left >= 0).all() and (top + tall <= height).all() and (left + wide <= width).all()
    for column in range(4):
        assert stats.ks_2samp(drawn[:, column], expected[:, column]).pvalue > 1e-3
    assert stats.ks_2samp(tall * wide, expected[:, 2] * expected[:, 3]).pvalue > 1e-3
    assert stats.ks_2samp(wide / tall, expected[:, 3] / expected[:, 2]).pvalue > 1e-3


def test_cuts_reach_the_ends_of_their_ranges_and_go_no_further():
    _, _, tall, wide = RandomResizedCrop(8, (0.1, 0.3), (0.6, 1.5)).draw(torch.empty(4000, 1, 1000, 1000), seeded())
    for values, low, high in ((tall * wide / 1e6, 0.1, 0.3), (wide / tall, 0.6, 1.5)):
        assert low * 0.99 < values.min() < low * 1.01 and high * 0.99 < values.max() < high * 1.01


@pytest.mark.parametrize(
    ("height", "width", "ratio", "expected"),
    [
        (4, 400, (3 / 4, 4 / 3), [0, 197, 4, 5]),
        (400, 4, (3 / 4, 4 / 3), [197, 0, 5, 4]),
        (30, 40, (1.0, 1.2), [0, 2, 30, 36]),
        (40, 30, (1.0, 1.2), [5, 0, 30, 30]),
        (8, 8, (0.5, 0.5), [0, 2, 8, 4]),
    ],
)
def test_where_no_cut_fits_the_largest_in_the_middle_is_taken(height, width, ratio, expected):
    view = RandomResizedCrop(8, scale=(1.0, 1.0), ratio=ratio)
    places = torch.stack(view.draw(torch.empty(5, 3, height, width), seeded()), dim=1)
    assert places.tolist() == [expected] * 5


def test_flips_are_mirror_images_of_half():
    x = pictures(batch=1000, height=2, width=3)
    made = HorizontalFlip(0.5)(x, seeded())
    flipped = torch.tensor([torch.equal(sample, given.flip(2)) for sample, given in zip(made, x, strict=True)])
    assert torch.equal(made[~flipped], x[~flipped]) and 440 < int(flipped.sum()) < 560


# Colours.


def test_hue_turns_as_colorsys_says():
    corners = torch.tensor(list(itertools.product((0.0, 0.3, 0.5, 1.0), repeat=3)), dtype=torch.float64)
    colours = torch.cat([corners, torch.rand(200, 3, generator=seeded(), dtype=torch.float64)])
    shifts = torch.tensor([-0.5, -0.1, 0.0, 0.05, 1 / 3, 0.5], dtype=torch.float64)
    x = colours.T.reshape(1, 3, -1, 1).repeat(len(shifts), 1, 1, 1)
    made = adjust_hue(x, shifts).squeeze(3)
    for sample, shift in zip(made, shifts.tolist(), strict=True):
        for turned, colour in zip(sample.T.tolist(), colours.tolist(), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*colour)
            assert turned == pytest.approx(colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value), abs=1e-12)


@pytest.mark.parametrize(
    ("adjust", "enhancer"),
    [
        (adjust_brightness, ImageEnhance.Brightness),
        (adjust_contrast, ImageEnhance.Contrast),
        (adjust_saturation, ImageEnhance.Color),
    ],
)
def test_brightness_contrast_and_saturation_are_pillows(adjust, enhancer):
    bytes_ = (255 * pictures(batch=5)).round().to(torch.uint8)
    factors = torch.tensor([0.0, 0.6, 1.0, 1.4, 3.0])
    made = adjust(bytes_.float() / 255, factors)
    for sample, picture, factor in zip(made, bytes_, factors.tolist(), strict=True):
        expected = enhancer(Image.fromarray(picture.permute(1, 2, 0).numpy())).enhance(factor)
        # Pillow rounds grey and mean to bytes before it blends, hence up to |1 - factor| bytes more.
        within = 1.01 + abs(1 - factor)
        assert np.abs(255 * sample.permute(1, 2, 0).numpy() - np.asarray(expected)).max() <= within


def test_jitter_is_a_loop_over_samples_in_orders_of_their_own():
    view, x = ColourJitter(), pictures(batch=40, height=3, width=4)
    made = view(x, seeded(5))
    strengths, order, picked = view.draw(x, seeded(5))
    for i in range(len(x)):
        expected = x[i : i + 1]
        for number in order[i].tolist() if picked[i] else ():
            expected = ADJUSTMENTS[number](expected, strengths[i : i + 1, number])
        assert torch.allclose(made[i], expected[0], atol=1e-6)
    assert torch.equal(made[~picked], x[~picked]) and 0 < int(picked.sum()) < 40


def test_the_strengths_and_orders_of_jitter():
    strengths, order, picked = ColourJitter(0.4, 1.5, 0.2, 0.1).draw(torch.empty(6000, 3, 1, 1), seeded())
    for column, (low, high) in enumerate([(0.6, 1.4), (0.0, 2.5), (0.8, 1.2), (-0.1, 0.1)]):
        assert stats.kstest(strengths[:, column].numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-3
    _, counts = order.unique(dim=0, return_counts=True)
    assert len(counts) == 24 and stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert picked.float().mean() == pytest.approx(0.8, abs=0.02)


def test_grey_is_pillows_in_all_channels():
    bytes_ = (255 * pictures()).round().to(torch.uint8)
    made = Grayscale(1.0)(bytes_, seeded())
    assert torch.equal(made[:, 0], made[:, 1]) and torch.equal(made[:, 0], made[:, 2])
    for sample, picture in zip(made, bytes_, strict=True):
        grey = np.asarray(Image.fromarray(picture.permute(1, 2, 0).numpy()).convert("L"))
        assert np.abs(255 * sample[0].numpy() - grey).max() <= 1
    mixed = Grayscale(0.2)(pictures(batch=2000, height=1, width=2), seeded())
    assert float((mixed[:, 0] == mixed[:, 1]).all(dim=(1, 2)).float().mean()) == pytest.approx(0.2, abs=0.03)


def test_solarised_bytes_are_pillows():
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    made = Solarise(probability=1.0)(every, seeded())
    expected = np.asarray(ImageOps.solarize(Image.fromarray(every[0, 0].numpy())))
    assert np.array_equal((255 * made[0, 0]).round().numpy().astype(np.uint8), expected)
    some = Solarise(probability=0.2)(torch.ones(2000, 1, 1, 1), seeded())
    assert some.mean() == pytest.approx(0.8, abs=0.03) and set(some.unique().tolist()) == {0.0, 1.0}


def test_normalised_channels():
    x = pictures(dtype=torch.float64)
    made = Normalise((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))(x)
    for channel, (mean, std) in enumerate([(0.1, 1.0), (0.2, 2.0), (0.3, 4.0)]):
        assert torch.allclose(made[:, channel], (x[:, channel] - mean) / std, atol=1e-15)


# Blur.


@given(height=st.integers(1, 16), width=st.integers(1, 16), seed=st.integers(0, 999))
def test_blur_is_scipys_whatever_the_sample_beside_needs(height, width, seed):
    sigma = 0.05 + 3 * torch.rand(4, generator=seeded(seed), dtype=torch.float64)
    x = pictures(batch=4, height=height, width=width, dtype=torch.float64)
    made = gaussian_blur(x, sigma)
    for i, channel in itertools.product(range(4), range(3)):
        expected = ndimage.gaussian_filter(x[i, channel].numpy(), float(sigma[i]), mode="nearest", truncate=4.0)
        assert np.allclose(made[i, channel].numpy(), expected, atol=1e-12)


def test_blurs_are_uniform_in_sigma_and_as_frequent_as_asked():
    x = torch.zeros(1500, 1, 1, 33)
    x[..., 16] = 1  # the blurred impulse has the kernel's variance
    places = torch.arange(-16.0, 17.0)
    made = GaussianBlur(sigma=(1.0, 3.0), probability=0.5)(x, seeded())
    std = (made[:, 0, 0] * places**2).sum(dim=1).sqrt()
    blurred = std > 0
    assert blurred.float().mean() == pytest.approx(0.5, abs=0.05) and torch.equal(made[~blurred], x[~blurred])
    assert stats.kstest(std[blurred].numpy(), stats.uniform(1.0, 2.0).cdf).pvalue > 1e-3
