"""Probes against scikit-learn, and what a probe may not do."""

import pytest
import torch

from poise.data import digits
from poise.objectives import OnlineProbe, fit_linear_probe, nearest_neighbours


@pytest.fixture(scope="module")
def pictures():
    found = digits()
    return [(part.inputs.flatten(1), part.labels) for part in (found.train, found.test)]


@pytest.mark.parametrize("strength", [0.01, 0.1, 1.0])
def test_the_linear_probe_is_scikit_learns_regression(pictures, strength):
    from sklearn.linear_model import LogisticRegression

    (x, y), (test, labels) = pictures
    mean, deviation = x.mean(dim=0), x.std(dim=0).clamp_min(1e-6)
    ours = fit_linear_probe(x, y, 10, strength)
    theirs = LogisticRegression(C=strength, max_iter=3000, tol=1e-8).fit(((x - mean) / deviation).double(), y)
    assert (ours.weight - torch.from_numpy(theirs.coef_).float()).abs().max() < 5e-3
    scaled = ((test - mean) / deviation).double()
    assert ours.accuracy(test, labels) == pytest.approx(theirs.score(scaled, labels), abs=2 / 500)


def test_a_probe_sends_no_gradient_and_needs_none(pictures):
    (x, y), _ = pictures
    x = x[:200].clone().requires_grad_()
    with torch.no_grad():
        probe = fit_linear_probe(x, y[:200], 10)
    assert x.grad is None and not probe.weight.requires_grad


def test_nearest_neighbours_are_scikit_learns(pictures):
    from sklearn.neighbors import KNeighborsClassifier

    (x, y), (test, _) = pictures
    x, test = x[:300], test[:200]
    one = KNeighborsClassifier(1, metric="cosine").fit(x, y[:300]).predict(test)
    assert torch.equal(nearest_neighbours(x, y[:300], test, 10, neighbours=1), torch.from_numpy(one))
    weights = lambda distance: torch.exp(torch.from_numpy(1 - distance) / 0.07).numpy()  # noqa: E731
    twenty = KNeighborsClassifier(20, metric="cosine", weights=weights).fit(x, y[:300]).predict(test)
    assert torch.equal(nearest_neighbours(x, y[:300], test, 10), torch.from_numpy(twenty))


def test_what_cannot_be_probed_is_refused(pictures):
    (x, y), _ = pictures
    with pytest.raises(ValueError, match="one label each"):
        fit_linear_probe(x[:10], y[:9], 10)
    with pytest.raises(ValueError, match="neighbours=30 of 20"):
        nearest_neighbours(x[:20], y[:20], x, 10, neighbours=30)


def test_the_online_probe_is_ridge_regression_on_all_that_it_has_seen():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 6, generator=generator, dtype=torch.float64) * torch.arange(1, 7) + 30
    y = torch.randint(3, (120,), generator=generator)
    probe = OnlineProbe(6, 3, decay=0.9, ridge=0.1)
    for part, labels in zip(x.split(30), y.split(30), strict=True):
        probe.update(part.float(), labels)
    standardised = (x - x.mean(dim=0)) / x.std(dim=0, correction=0)
    targets = torch.nn.functional.one_hot(y, 3).double()
    gram = standardised.t() @ standardised / 120 + 0.1 * torch.eye(6, dtype=torch.float64)
    weight = torch.linalg.solve(gram, standardised.t() @ (targets - targets.mean(dim=0)) / 120)
    expected = standardised @ weight + targets.mean(dim=0)
    assert torch.allclose(probe.fitted()(x).double(), expected, atol=1e-4)


def test_the_online_probe_follows_features_that_move():
    generator = torch.Generator().manual_seed(0)
    probe = OnlineProbe(4, 2, decay=0.8)
    for turn in (1.0, -1.0):
        for _ in range(20):
            y = torch.randint(2, (64,), generator=generator)
            x = torch.randn(64, 4, generator=generator)
            x[:, 0] += turn * 6 * (y - 0.5)
            probe.update(x, y)
        assert probe.fitted().accuracy(x, y) > 0.98


def test_an_online_probe_that_follows_nothing_is_refused():
    with pytest.raises(ValueError, match="pass decay in .0, 1. and ridge above 0"):
        OnlineProbe(4, 2, decay=1.0)
