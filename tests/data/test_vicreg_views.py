"""The published pairs of views for VICReg: their settings, and what a pair makes of each picture."""

import pytest
import torch

from poise.data import (
    ColourJitter,
    Composed,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    Normalise,
    RandomResizedCrop,
    Solarise,
    vicreg_cifar_views,
    vicreg_views,
)
from tests.data.pictures import seeded


def test_the_published_pairs():
    shared = (HorizontalFlip(0.5), ColourJitter(0.4, 0.4, 0.2, 0.1, probability=0.8), Grayscale(0.2))
    imagenet = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    first, second = vicreg_views()
    for view, blur, solarise in ((first, 1.0, 0.0), (second, 0.1, 0.2)):
        parts = (RandomResizedCrop(224, (0.08, 1.0)), *shared, GaussianBlur((0.1, 2.0), blur))
        assert view == Composed((*parts, Solarise(128 / 255, solarise), imagenet))
    for view in vicreg_cifar_views():
        assert view.views[:-1] == (RandomResizedCrop(32, (0.2, 1.0)), *shared, Solarise(128 / 255, 0.1))


@pytest.mark.parametrize("pair", [vicreg_views(16), vicreg_cifar_views(16)])
def test_a_pair_makes_two_views_of_each_picture(pair):
    x = (255 * torch.rand(64, 3, 20, 28, generator=seeded())).to(torch.uint8)
    generator = seeded(3)
    first, second = (view(x, generator) for view in pair)
    assert first.shape == second.shape == (64, 3, 16, 16)
    assert (first - second).flatten(1).abs().amax(dim=1).min() > 0
    for made, view in zip((first, second), pair, strict=True):
        normalise = view.views[-1]
        mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (normalise.mean, normalise.std))
        assert (made * std + mean).min() > -1e-5 and (made * std + mean).max() < 1 + 1e-5
