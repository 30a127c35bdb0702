"""Windows and scales: exact where they must be, an average by hand elsewhere, and the same for mirror images."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from poise.models import multiscale_probabilities, sliding_logits


def network(classes=4, seed=0):
    """A network with a wide field of view whose answer depends on where the window ends."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, padding=2), nn.GroupNorm(2, 6), nn.ReLU(), nn.Conv2d(6, classes, 3, padding=1)
    ).eval()


def pictures(batch=2, height=17, width=23, dtype=torch.float32):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=dtype)


def pointwise(x):
    return torch.stack([x.sum(dim=1), x[:, 0] * x[:, 1], 1 - x[:, 2] ** 2], dim=1)


@pytest.mark.parametrize("window", [(17, 23), (40, 23), (99, 99)])
def test_one_window_that_covers_the_picture_is_exact(window):
    net, x = network(), pictures()
    with torch.no_grad():
        assert torch.equal(sliding_logits(net, x, window), net(x))


@given(
    height=st.integers(1, 20), width=st.integers(1, 20), tall=st.integers(1, 25), wide=st.integers(1, 25),
    overlap=st.floats(0, 0.95), at_once=st.integers(1, 9),
)  # fmt: skip
def test_where_windows_make_no_difference_there_is_none(height, width, tall, wide, overlap, at_once):
    x = pictures(2, height, width, torch.float64)
    calls = []

    def seen(cuts):
        calls.append(cuts.shape)
        return pointwise(cuts)

    made = sliding_logits(seen, x, (tall, wide), overlap, at_once)
    assert torch.allclose(made, pointwise(x), atol=1e-12)
    assert all(shape[2:] == (min(tall, height), min(wide, width)) and shape[0] <= at_once for shape in calls)


@given(length=st.integers(4, 40), window=st.integers(4, 20), overlap=st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.9]))
def test_windows_overlap_as_asked_and_are_no_more_than_needed(length, window, overlap):
    starts = []

    def place(cuts):
        starts.extend(int(cut[0, 0, 0]) for cut in cuts)
        return cuts[:, :1]

    x = torch.arange(float(length)).view(1, 1, 1, -1).expand(1, 3, 1, -1)
    sliding_logits(place, x, (1, window), overlap, at_once=3)
    if length <= window:
        assert starts == [0]
        return
    assert starts[0] == 0 and starts[-1] == length - window
    steps = [after - before for before, after in itertools.pairwise(starts)]
    assert min(steps) > 0 and max(steps) <= max(1, int(window * (1 - overlap)))
    assert len(starts) == 1 + -(-(length - window) // max(1, int(window * (1 - overlap))))


def test_windows_are_averaged_as_by_hand():
    net, x = network(), pictures(1, 8, 14)
    made = sliding_logits(net, x, (8, 8), overlap=0.25)
    with torch.no_grad():
        left, right = net(x[..., :8]), net(x[..., 6:])
    expected = torch.cat([left[..., :6], (left[..., 6:] + right[..., :2]) / 2, right[..., 2:]], dim=3)
    assert torch.allclose(made, expected, atol=1e-6)


def test_a_batch_is_its_pictures_one_by_one():
    net, x = network(), pictures(3)
    together = sliding_logits(net, x, (9, 9), at_once=5)
    alone = torch.cat([sliding_logits(net, x[i : i + 1], (9, 9), at_once=2) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-6)
    assert not together.requires_grad and len(sliding_logits(net, x[:0], (9, 9))) == 0


def test_one_scale_without_mirror_image_is_the_network():
    net, x = network(), pictures()
    with torch.no_grad():
        assert torch.equal(multiscale_probabilities(net, x, (1.0,), flip=False), net(x).softmax(dim=1))


@pytest.mark.parametrize("window", [None, (9, 11)])
def test_scales_are_averaged_as_by_hand(window):
    net, x = network(), pictures()
    expected = 0
    for size in ((8, 12), (17, 23), (34, 46)):
        for axes in ([], [3]):
            scaled = F.interpolate(x, size, mode="bilinear", antialias=True).flip(axes)
            with torch.no_grad():
                logits = net(scaled) if window is None else sliding_logits(net, scaled, window)
            expected = expected + F.interpolate(logits.flip(axes), (17, 23), mode="bilinear", antialias=True).softmax(
                dim=1
            )
    made = multiscale_probabilities(net, x, (0.5, 1.0, 2.0), window=window)
    assert torch.allclose(made, expected / 6, atol=1e-6)
    assert torch.allclose(made.sum(dim=1), torch.ones(2, 17, 23), atol=1e-6)


def test_the_mirror_image_gets_the_mirrored_answer():
    net, x = network(), pictures()
    made = multiscale_probabilities(net, x, (0.8, 1.0))
    assert torch.allclose(multiscale_probabilities(net, x.flip(3), (0.8, 1.0)).flip(3), made, atol=1e-5)


def test_half_precision_is_summed_in_single():
    made = sliding_logits(lambda x: 1000 * pointwise(x).half(), pictures(1), (5, 5), overlap=0.8)
    assert made.dtype == torch.float32
    assert torch.allclose(made, (1000 * pointwise(pictures(1)).half()).float(), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sliding_logits(pointwise, pictures()[0], (4, 4)), r"shape \(3, 17, 23\)"),
        (lambda: sliding_logits(pointwise, pictures().byte(), (4, 4)), "uint8"),
        (lambda: sliding_logits(pointwise, pictures(), (0, 4)), r"window=\(0, 4\)"),
        (lambda: sliding_logits(pointwise, pictures(), (4, 4), overlap=1.0), "overlap=1.0"),
        (lambda: sliding_logits(pointwise, pictures(), (4, 4), at_once=0), "at_once=0"),
        (lambda: sliding_logits(lambda x: x[:, :, ::2], pictures(), (4, 4)), "their height and width"),
        (lambda: multiscale_probabilities(lambda x: x.sum(dim=1), pictures()), "their height and width"),
        (lambda: multiscale_probabilities(pointwise, pictures(), (0.01,)), "leave no picture"),
        (lambda: multiscale_probabilities(pointwise, pictures(), ()), "at least one"),
    ],
)
def test_what_covers_nothing_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
