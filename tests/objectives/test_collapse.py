"""Measures of collapse against NumPy and pairs written out, and a detector that names what is wrong."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from poise.objectives import (
    agreement,
    effective_rank,
    find_collapse,
    mean_correlation,
    participation_ratio,
    scale_free_deviation,
    spread,
)

shapes = given(st.integers(2, 30), st.integers(1, 30), st.floats(0.01, 100.0), st.integers(0, 1000))


def normal(n, d, seed=0, scale=1.0):
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_rank(rank, n=256, d=128, seed=0):
    """Columns of unit variance that are mixtures of so many."""
    z = normal(n, rank, seed) @ normal(rank, d, seed + 1)
    return (z - z.mean(0)) / z.std(0)


@shapes
def test_spread_is_numpys(n, d, scale, seed):
    z = normal(n, d, seed, scale)
    expected = z.numpy().std(axis=0, ddof=1)
    found = spread(z, floor=2.0)
    assert [found.mean, found.minimum] == pytest.approx([expected.mean(), expected.min()])
    assert found.share_small == (expected < 0.2).mean()


@shapes
def test_effective_rank_is_rankme(n, d, scale, seed):
    z = normal(n, d, seed, scale)
    z[:, 0] *= 50
    values = np.linalg.svd(z.numpy(), compute_uv=False)
    p = values / values.sum() + 1e-7
    assert effective_rank(z) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)
    assert effective_rank(3 * z) == pytest.approx(effective_rank(z), rel=1e-9)  # blind to scale


def test_effective_rank_of_known_spectra():
    q = torch.linalg.qr(normal(40, 8)).Q
    assert effective_rank(q) == pytest.approx(8, rel=1e-4)
    assert effective_rank(q[:, :1] @ normal(1, 30)) == pytest.approx(1, rel=1e-3)
    assert effective_rank(q.float()) == pytest.approx(8, rel=1e-4)


@shapes
def test_participation_ratio_is_that_of_the_covariance(n, d, scale, seed):
    z = normal(n, d, seed, scale)
    c = np.atleast_2d(np.cov(z.numpy().T))
    expected = np.trace(c) ** 2 / (c * c).sum()
    assert participation_ratio(z) == pytest.approx(expected, rel=1e-9)
    assert participation_ratio(z + 7) == pytest.approx(expected, rel=1e-6)


@shapes
def test_mean_correlation_is_numpys(n, d, scale, seed):
    if d < 2:
        assert mean_correlation(normal(n, d, seed)) == 0
        return
    z = normal(n, d, seed, scale)
    c = np.abs(np.corrcoef(z.numpy().T))
    assert mean_correlation(z) == pytest.approx((c.sum() - np.trace(c)) / (d * (d - 1)), abs=1e-9)


def test_correlation_beyond_one_block_and_with_constant_columns():
    z = normal(8, 1500)
    c = np.abs(np.corrcoef(z.numpy().T))
    assert mean_correlation(z) == pytest.approx((c.sum() - 1500) / (1500 * 1499), abs=1e-9)
    copies = torch.stack([z[:, 0], -2 * z[:, 0], torch.ones(8)], dim=1)
    assert mean_correlation(copies) == pytest.approx(2 / 6)


@given(st.integers(2, 12), st.integers(1, 9), st.integers(0, 1000))
def test_agreement_is_the_mean_over_pairs(n, d, seed):
    first, second = normal(n, d, seed), normal(n, d, seed + 1)
    cosine = lambda i, j: F.cosine_similarity(first[i], second[j], dim=0).item()  # noqa: E731
    found = agreement(first, second)
    assert found.positive == pytest.approx(np.mean([cosine(i, i) for i in range(n)]), abs=1e-9)
    assert found.shuffled == pytest.approx(
        np.mean([cosine(i, j) for i, j in itertools.permutations(range(n), 2)]), abs=1e-9
    )


def test_scale_free_deviation_knows_the_two_ends():
    z = normal(4000, 64)
    rows = z.numpy() / np.linalg.norm(z.numpy(), axis=1, keepdims=True)
    assert scale_free_deviation(z) == pytest.approx(rows.std(axis=0, ddof=1).mean() * 8)
    assert scale_free_deviation(z) == pytest.approx(1, abs=0.02)
    assert scale_free_deviation(1e-3 * z) == pytest.approx(scale_free_deviation(z))
    assert scale_free_deviation(1 + 1e-3 * z) < 0.01


@pytest.mark.parametrize("rank", [12, 30, 128])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_healthy_embeddings_raise_no_finding(rank, dtype):
    z = of_rank(rank).to(dtype)
    assert find_collapse(z) is None and find_collapse(0.6 * z) is None and find_collapse(z, floor=None) is None


def test_a_point_is_found_although_its_rank_is_full():
    z = 5 + 0.01 * normal(256, 128)
    assert effective_rank(z - z.mean(0)) > 60
    finding = find_collapse(z)
    assert finding.name == "collapse to a point" and finding.term == "variance"
    assert "0.01, asked: 1" in str(finding) and "look at the variance term" in str(finding)
    assert find_collapse(z, floor=None).name == "collapse to a point"
    assert find_collapse(torch.zeros(20, 8)).name == "collapse to a point"
    assert find_collapse(torch.zeros(20, 8), floor=None).name == "collapse to a point"


def test_the_floor_is_what_deviations_are_measured_by():
    z = 0.05 * of_rank(64)
    assert find_collapse(z).name == "collapse to a point"
    assert find_collapse(z, floor=0.05) is None and find_collapse(z, floor=None) is None


@pytest.mark.parametrize("floor", [1.0, None])
def test_a_low_rank_is_found_although_every_column_varies(floor):
    z = of_rank(2)
    assert spread(z).minimum == pytest.approx(1)
    finding = find_collapse(z, floor=floor)
    assert finding.name == "collapse of rank" and finding.term == "covariance"
    assert "of 128" in finding.message and "raise its weight" in finding.message


def test_constant_dimensions_are_found():
    z = of_rank(64)
    z[:, ::2] *= 1e-3
    assert find_collapse(z) is None  # half of them
    z[:, 1] *= 1e-3
    finding = find_collapse(z)
    assert finding.name == "collapse of dimensions" and finding.term == "variance" and "51%" in finding.message


def test_numbers_that_are_none_are_a_finding():
    z = of_rank(20)
    z[3, 5], z[9, 0] = math.nan, math.inf
    assert str(find_collapse(z)).startswith("non-finite embeddings: 2 of 256 embeddings")


@pytest.mark.parametrize("z", [torch.zeros(5), torch.zeros(1, 4), torch.zeros(3, 0), torch.zeros(3, 4).long()])
@pytest.mark.parametrize("measure", [spread, effective_rank, participation_ratio, mean_correlation, find_collapse])
def test_what_is_no_batch_of_embeddings_is_refused(measure, z):
    with pytest.raises(ValueError, match=r"embeddings are \(N, D\) with at least 2 samples"):
        measure(z)


def test_views_of_two_batches_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(5, 3\)"):
        agreement(torch.zeros(4, 3), torch.zeros(5, 3))
