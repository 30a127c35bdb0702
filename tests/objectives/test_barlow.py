"""Barlow Twins against its equation, and against batch normalisation's convention."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from poise.objectives import BarlowTwinsLoss


def plain(first, second, weight=0.0051):
    """As published: batch normalisation without parameters, then the D x D cross-correlation."""
    normalise = nn.BatchNorm1d(first.shape[1], affine=False, track_running_stats=False, dtype=first.dtype)
    matrix = normalise(first).T @ normalise(second) / len(first)
    on = (matrix.diagonal() - 1).square().sum()
    off = (matrix - torch.diag(matrix.diagonal())).square().sum()
    return on, off, on + weight * off


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.integers(1, 30), st.integers(0, 2**31))
def test_it_is_the_published_loss(batch, width, seed):
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randn(batch, width, generator=generator, dtype=torch.float64) for _ in range(2)]
    found, expected = ([z.clone().requires_grad_() for z in views] for _ in range(2))
    terms = BarlowTwinsLoss()(*found)
    on, off, total = plain(*expected)
    assert terms.on_diagonal.item() == pytest.approx(on.item(), rel=1e-9, abs=1e-10)
    assert terms.off_diagonal.item() == pytest.approx(off.item(), rel=1e-9, abs=1e-10)
    terms.total.backward()
    total.backward()
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-8, atol=1e-9)


def test_a_batch_of_one_is_refused():
    with pytest.raises(ValueError, match="at least 2 to correlate"):
        BarlowTwinsLoss()(torch.zeros(1, 3), torch.zeros(1, 3))


def test_views_of_different_widths_are_refused():
    with pytest.raises(ValueError, match="of one shape"):
        BarlowTwinsLoss()(torch.zeros(4, 3), torch.zeros(4, 2))
