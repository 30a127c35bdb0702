"""What a root finder from elsewhere is asked for: the samples that have not passed, and no others."""

from collections import Counter

import pytest
import torch

import poise
from poise import External, Status

RATES = torch.tensor([[0.97], [0.2], [0.2], [0.2], [0.2], [0.2], [0.2], [0.2]], dtype=torch.float64)


def asking(asked, calls):
    """A finder of three plain steps that takes down of whom it was asked: samples differ in their second number."""

    def find(g, z):
        for _ in range(3):
            residual = g(z)
            asked[round(float(residual[1] + 0.5 * z[1]))] += 1  # the second number is z / 2 + sample, in every sample
            calls.append(1)
            z = z + residual
        return z

    return find


def f(z, x):
    rate, sample = x
    return torch.stack([rate[:, 0] * z[:, 0] + 1, 0.5 * z[:, 1] + sample[:, 0]], dim=1)


@pytest.mark.parametrize("with_context", [True, False])
@pytest.mark.parametrize("options", [{"rtol": 1e-6}, {"rtol": 1e-6, "atol": 1e-5}, {"rtol": 0.0, "atol": 1e-5}])
def test_a_finder_is_asked_about_a_sample_once_for_every_test_but_the_last(with_context, options):
    """Without a context, finished samples stay in the batch, and each call evaluates all of it."""
    x = (RATES, torch.arange(1.0, 9.0, dtype=torch.float64).unsqueeze(1))
    asked, calls = Counter(), []
    solver = External(asking(asked, calls), max_steps=400, **options)
    closed = (f, torch.zeros(8, 2).double(), x) if with_context else (lambda z: f(z, x), torch.zeros(8, 2).double())
    solution = poise.fixed_point(*closed, solver=solver, check=False)
    assert solution.ok and solution.steps[0] > 5 * solution.steps[1]
    assert [asked[sample] for sample in range(1, 9)] == (3 * (solution.steps - 1)).tolist()
    assert solution.evaluations == int(solution.steps.max()) + len(calls)


def test_a_fixed_budget_asks_about_a_sample_until_it_is_at_its_fixed_point():
    """The first sample is found at once; of the second no answer is exact."""
    asked = Counter()

    def find(g, z):
        first = bool(g(torch.zeros_like(z)) == 1)
        asked[first] += 1
        return torch.full_like(z, 2.0) if first else 0.9 * z + 0.4

    x = torch.tensor([[1.0], [2.0]]).double()
    solver = External(find, rtol=None, max_steps=40)
    solution = poise.fixed_point(lambda z, x: 0.5 * z + x, torch.zeros(2, 1).double(), x, solver=solver, check=False)
    assert solution.status.tolist() == [Status.CONVERGED, Status.BUDGET] and solution.residual[0] == 0
    tests = solution.evaluations - asked.total()
    assert asked == {True: 1, False: tests - 1}
