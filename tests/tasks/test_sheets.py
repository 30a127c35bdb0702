"""Sheets of pictures: sizes, colours, what stays clear, amounts as heat."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from poise.data import VOID, Normalise
from poise.tasks.sheets import LARGEST, class_colours, framed, heat, hexadecimal, overlay, sheet, shown

PLAIN = Normalise((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def opened(png):
    return np.array(Image.open(io.BytesIO(base64.b64decode(png))))


def test_a_picture_is_shown_as_it_was():
    x = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    normalise = Normalise((0.2, 0.5, 0.7), (0.1, 0.2, 0.3))
    assert torch.allclose(shown(normalise(x)[1], normalise), x[1], atol=1e-6)
    grey = shown((x[0, :1] - 0.5) / 0.25, Normalise((0.5,), (0.25,)))
    assert torch.allclose(grey, x[0, :1].expand(3, -1, -1), atol=1e-6)
    assert torch.equal(shown(torch.full((3, 2, 2), 0.5), PLAIN), torch.full((3, 2, 2), 0.5))  # of one colour


@pytest.mark.parametrize(("size", "expected"), [((600, 900), (187, 280)), ((2000, 3), (280, 1)), ((280, 280), None)])
def test_large_pictures_are_made_smaller_and_no_others(size, expected):
    x = torch.full((3, *size), 0.25)
    labels = torch.zeros(size, dtype=torch.int64)
    for tile in (shown(x, PLAIN), heat(torch.ones(4, 4), 0.1, 1.0, size)):
        assert tile.shape[1:] == (expected or size) and max(tile.shape[1:]) <= LARGEST
    painted = overlay(shown(x, PLAIN), labels, ["a"])
    assert painted.shape[1:] == (expected or size)


def test_an_overlay_paints_classes_and_leaves_void_and_background_clear():
    names = ["sky", "background", "car"]
    picture = torch.full((3, 2, 2), 0.5)
    labels = torch.tensor([[0, 1], [VOID, 2]])
    found = overlay(picture, labels, names)
    assert torch.equal(found[:, 0, 1], picture[:, 0, 1]) and torch.equal(found[:, 1, 0], picture[:, 1, 0])
    for place, (row, column) in ((0, (0, 0)), (2, (1, 1))):
        expected = 0.6 * torch.tensor(class_colours(names)[place]) + 0.4 * 0.5
        assert torch.allclose(found[:, row, column], expected)


def test_colours_tell_classes_apart():
    colours = class_colours([str(place) for place in range(19)])
    assert len({hexadecimal(colour) for colour in colours}) == 19
    distances = [
        max(abs(a - b) for a, b in zip(one, other, strict=True)) for one in colours for other in colours if one != other
    ]
    assert min(distances) > 0.05
    assert hexadecimal((0.0, 1.0, 0.5)) == "#00ff80"


def test_heat_runs_from_black_to_white_by_logarithm():
    low, high = 1e-4, 1e-1
    amounts = torch.tensor([[low, 1e-9], [high, 1.0], [1e-3, 1e-2]])
    found = heat(amounts, low, high, (3, 2))
    assert torch.equal(found[:, 0], torch.zeros(3, 2)) and torch.allclose(found[:, 1], torch.ones(3, 2))
    assert torch.allclose(found[:, 2, 0], torch.tensor([1.0, 0, 0]), atol=1e-4)  # a third of the way: red
    assert torch.allclose(found[:, 2, 1], torch.tensor([1.0, 1, 0]), atol=1e-4)  # two thirds: yellow
    assert heat(torch.full((2, 2), 0.3), 0.3, 0.3, (4, 6)).isfinite().all()


def test_a_sheet_has_its_tiles_in_rows_and_ends_in_white():
    tiles = [framed(torch.full((3, 2, 3), value), (0.0, 0.0, 1.0)) for value in (0.0, 0.5, 1.0)]
    found = opened(sheet([tiles[:2], tiles[2:]]))
    assert found.shape == (8, 10, 3)
    assert (found[0, :] == (0, 0, 255)).all() and (found[1:3, 1:4] == 0).all() and (found[1:3, 6:9] == 128).all()
    assert (found[5:7, 1:4] == 255).all() and (found[4:, 5:] == 255).all()
