"""Weights kept within a spectral norm: by exact singular values, with the exact gradient."""

import copy
import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from poise.nn import normalize, remove_normalization


def bounded(rows=6, columns=9, gain=3.0, bound=0.9, seed=0, **options):
    torch.manual_seed(seed)
    layer = nn.Linear(columns, rows, bias=False).double()
    layer.weight.data = gain * torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64)).Q[:rows, :columns]
    layer.weight.data[0] *= 2
    return normalize(layer, "spectral", bound=bound, **options)


def largest(layer):
    return torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2).item()


@given(st.floats(0.01, 20.0), st.floats(0.1, 2.0), st.integers(0, 100))
def test_the_bound_holds_and_what_is_within_it_is_left_alone(gain, bound, seed):
    layer = bounded(gain=gain, bound=bound, seed=seed)
    original = layer.parametrizations["weight"].original
    exact = torch.linalg.matrix_norm(original.detach(), 2).item()
    if exact <= bound:
        assert torch.equal(layer.weight, original)
    else:
        assert largest(layer) == pytest.approx(bound, rel=1e-6)
        assert torch.allclose(layer.weight * exact / bound, original, rtol=1e-6)


def test_the_bound_holds_while_the_weight_is_trained_against_it():
    """A target that wants every singular value large; looked at in evaluation mode, right after each step."""
    layer = bounded(gain=0.5)
    optimizer = torch.optim.Adam(layer.parameters(), lr=3e-2)
    target = 3 * torch.randn(6, 9, dtype=torch.float64)
    seen = []
    for _ in range(100):
        optimizer.zero_grad()
        (layer.train().weight - target).square().sum().backward()
        optimizer.step()
        seen.append(largest(layer.eval()))
    assert torch.linalg.matrix_norm(layer.parametrizations["weight"].original.detach(), 2) > 1.8
    assert max(seen) < 1  # the margin to 1 is what contraction needs
    layer.train()
    for _ in range(20):
        settled = largest(layer)
    assert settled == pytest.approx(0.9, rel=1e-3)


def test_a_weight_that_begins_at_zero_is_bounded_later():
    layer = normalize(nn.Linear(4, 4, bias=False), "spectral", bound=0.5)
    original = layer.parametrizations["weight"].original
    original.data.zero_()
    assert layer.weight.abs().max() == 0
    original.data.copy_(3 * torch.eye(4))
    assert largest(layer) == pytest.approx(0.5, rel=1e-4)


def test_the_gradient_is_that_of_the_exact_formula():
    layer = bounded(n_power_iterations=50)
    direction = torch.randn(6, 9, dtype=torch.float64)
    original = layer.parametrizations["weight"].original
    (found,) = torch.autograd.grad((layer.weight * direction).sum(), original)
    plain = original.detach().clone().requires_grad_()
    scaled = plain * 0.9 / torch.linalg.svdvals(plain)[0]
    (expected,) = torch.autograd.grad((scaled * direction).sum(), plain)
    assert torch.allclose(found, expected, atol=1e-9)


def test_two_forwards_before_a_backward():
    layer = bounded()
    first, second = layer.weight, layer.weight  # the vectors move between them
    (first.sum() + second.sum()).backward()
    assert layer.parametrizations["weight"].original.grad.isfinite().all()


def test_evaluation_moves_nothing_and_a_saved_layer_goes_on_exactly():
    layer = bounded(n_power_iterations=1)
    layer.parametrizations["weight"].original.data.add_(0.3 * torch.randn(6, 9))
    before = copy.deepcopy(layer.state_dict())
    layer.eval()
    assert torch.equal(layer.weight, layer.weight)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), layer.state_dict().values(), strict=True))
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = bounded(seed=1, n_power_iterations=1)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(layer.train().weight, other.weight)
    assert not torch.equal(
        before["parametrizations.weight.0.right"], layer.state_dict()["parametrizations.weight.0.right"]
    )


def test_half_precision_does_not_reach_the_estimate():
    layer = bounded().float()
    exact = layer.weight.detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(layer.weight, exact, rtol=1e-6)


def test_a_kernel_is_bounded_as_a_matrix_and_a_bound_is_removed_like_any_other():
    torch.manual_seed(0)
    layer = normalize(nn.Conv2d(3, 8, 3), "spectral", bound=0.25, n_power_iterations=20)
    assert largest(layer) == pytest.approx(0.25, rel=1e-4)
    layer.eval()
    value = layer.weight.detach()
    assert torch.equal(remove_normalization(layer).weight, value) and type(layer) is nn.Conv2d


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("weight", {"bound": 0.9}, "kind='weight', bound=0.9"),
        ("spectral", {"bound": 0.0}, "bound=0.0 leaves nothing"),
        ("spectral", {"bound": 0.9, "n_power_iterations": 0}, "n_power_iterations=0"),
    ],
)
def test_bounds_that_mean_nothing_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        normalize(nn.Linear(3, 3), kind, **options)
