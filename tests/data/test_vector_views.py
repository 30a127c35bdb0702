"""Views of vectors and series."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from poise.data import Masking, Noise, Scaling, Shift, SpanMasking
from tests.data.pictures import seeded


def test_noise_is_gaussian_of_its_std_and_nothing_else():
    x = torch.arange(4000.0).view(40, 100)
    added = Noise(0.25)(x, seeded()) - x
    assert stats.kstest(added.flatten().numpy(), stats.norm(0, 0.25).cdf).pvalue > 1e-3
    assert torch.equal(Noise(0.0)(x, seeded()), x)


def test_masks_hide_their_share_of_each_sample_and_leave_the_rest():
    x = torch.ones(200, 300)
    made = Masking(0.3, value=-5.0)(x, seeded())
    share = (made == -5).float().mean(dim=1)
    assert set(made.unique().tolist()) == {-5.0, 1.0} and share.mean() == pytest.approx(0.3, abs=0.01)
    # As the binomial of 300 values has it.
    assert share.std() == pytest.approx((0.3 * 0.7 / 300) ** 0.5, rel=0.2)


@given(whole=st.integers(1, 12), longest=st.integers(0, 12), seed=st.integers(0, 99))
def test_a_masked_span_is_one_whole_run_in_all_channels(whole, longest, seed):
    longest = min(longest, whole)
    made = SpanMasking(longest, value=9.0)(torch.zeros(30, 2, whole), seeded(seed))
    assert torch.equal(made[:, 0], made[:, 1])
    for row in made[:, 0]:
        hidden = (row == 9).nonzero().squeeze(1)
        assert len(hidden) <= longest
        assert torch.equal(hidden, torch.arange(len(hidden)) + (hidden[0] if len(hidden) else 0))


def test_spans_have_all_lengths_and_places_alike():
    hidden = SpanMasking(3, value=1.0)(torch.zeros(8000, 5), seeded())
    lengths = hidden.sum(dim=1).long()
    assert stats.chisquare(torch.bincount(lengths, minlength=4).numpy()).pvalue > 1e-3
    starts = hidden[lengths == 2].argmax(dim=1)
    assert stats.chisquare(torch.bincount(starts, minlength=4).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize(("whole", "most"), [(7, 2), (3, 5)])
def test_a_shift_is_numpys_roll_with_zeros_or_without(wrap, whole, most):
    x = torch.rand(900, 2, whole, generator=seeded(1)) + 1
    made = Shift(most, wrap)(x, seeded())
    counts = np.zeros(2 * most + 1)
    for row, given_ in zip(made.numpy(), x.numpy(), strict=True):
        fitting = []
        for by in range(-most, most + 1):
            expected = np.roll(given_, by, axis=-1)
            if not wrap and by:
                expected[:, slice(0, by) if by > 0 else slice(max(0, whole + by), None)] = 0
            fitting.append(np.array_equal(row, expected))
        assert any(fitting)
        counts += np.array(fitting) / sum(fitting)
    assert (counts > 0).all()
    if whole > 2 * most:  # otherwise several shifts look alike
        assert stats.chisquare(counts).pvalue > 1e-3


def test_scales_are_one_factor_a_sample():
    factors = Scaling(0.5, 2.0)(torch.ones(3000, 2, 2), seeded()).flatten(1)
    assert torch.equal(factors.amin(dim=1), factors.amax(dim=1))
    assert stats.kstest(factors[:, 0].numpy(), stats.uniform(0.5, 1.5).cdf).pvalue > 1e-3


@pytest.mark.parametrize("view", [Noise(), Masking(), SpanMasking(2), Shift(2), Scaling()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_precision_stays(view, dtype):
    assert view(torch.ones(3, 4, dtype=dtype), seeded()).dtype == dtype
    with pytest.raises(ValueError, match="int64"):
        view(torch.ones(3, 4).long(), seeded())
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        view(torch.ones(3), seeded())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Noise(-1), "std=-1"),
        (lambda: Masking(1.1), "probability=1.1"),
        (lambda: SpanMasking(-1), "longest=-1"),
        (lambda: SpanMasking(9)(torch.zeros(2, 8), seeded()), "longest=9"),
        (lambda: Shift(-1), "most=-1"),
        (lambda: Scaling(2.0, 1.0), "the smaller first"),
    ],
)
def test_settings_that_make_no_view_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
