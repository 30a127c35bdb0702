"""The dense and the convolutional cell: their fixed points, gradients, and that samples and views stay apart."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from poise import GMRES, Anderson, Equilibrium, Implicit
from poise.nn import ConvCell, DenseCell
from tests.nn.test_equilibrium import assert_close

EXACT = {"solver": Anderson(rtol=1e-11), "adjoint": Implicit(GMRES(rtol=1e-11))}
CELLS = ("dense", "conv")


def cell_and_input(kind, batch=4):
    torch.manual_seed(0)
    if kind == "dense":
        return DenseCell(5, 8).double(), torch.randn(batch, 5, dtype=torch.float64)
    return ConvCell(3, 4, stride=2, groups=2).double(), torch.randn(batch, 3, 8, 8, dtype=torch.float64)


def iterated(cell, context, times=300):
    z = torch.zeros_like(context)
    for _ in range(times):
        z = cell(z, context)
    return z


@given(st.integers(0, 100), st.floats(0.1, 50.0), st.floats(0.2, 0.99))
def test_the_dense_cell_contracts_by_its_bound(seed, gain, bound):
    torch.manual_seed(seed)
    cell = DenseCell(3, 7, bound=bound).double()
    cell.linear.parametrizations["weight"].original.data.mul_(gain)
    first, second, context = 3 * torch.randn(3, 20, 7, dtype=torch.float64)
    for _ in range(20):  # the power iteration goes on
        moved = (cell(first, context) - cell(second, context)).norm(dim=1)
    assert (moved <= bound * (1 + 1e-3) * (first - second).norm(dim=1)).all()


def test_the_dense_cell_is_its_formula():
    cell, x = cell_and_input("dense")
    linear, norm = cell.injection
    u = x @ linear.weight.T
    u = (u - u.mean(0)) / (u.var(0, unbiased=False) + norm.eps).sqrt()
    assert linear.bias is None and torch.allclose(cell.inject(x), u, atol=1e-12)
    z = torch.randn(4, 8, dtype=torch.float64)
    assert torch.allclose(cell.eval()(z, u), (z @ cell.linear.weight.T + u).clamp_min(0), atol=1e-12)
    plain = DenseCell(5, 8, batch_norm=False).double()
    assert torch.equal(plain.inject(x), nn.functional.linear(x, plain.injection[0].weight, plain.injection[0].bias))


def test_the_conv_cell_is_its_formula():
    cell, x = cell_and_input("conv")

    def grouped(h):
        parts = h.unflatten(1, (2, 2))
        mean, var = parts.mean((2, 3, 4), keepdim=True), parts.var((2, 3, 4), unbiased=False, keepdim=True)
        return ((parts - mean) / (var + 1e-5).sqrt()).flatten(1, 2)

    z, context = torch.randn(2, 4, 4, 4, 4, dtype=torch.float64)
    hidden = grouped(nn.functional.conv2d(z, cell.first.weight, padding=1)).relu()
    inner = grouped(nn.functional.conv2d(hidden, cell.second.weight, padding=1) + context)
    assert torch.allclose(cell(z, context), grouped((z + inner).relu()), atol=1e-10)
    assert cell.inject(x).shape == (4, 4, 4, 4)


@pytest.mark.parametrize("kind", CELLS)
def test_fixed_point_and_gradient_are_those_of_long_iteration(kind):
    cell, x = cell_and_input(kind)
    layer = Equilibrium(cell, **EXACT).eval()  # in training mode norms and vectors move with every call
    x.requires_grad_()
    wanted = [x, *layer.parameters()]
    state, expected = layer(x), iterated(cell, cell.inject(x))
    assert torch.allclose(state, expected, atol=1e-8)
    weight = torch.randn_like(state)
    found = torch.autograd.grad((state * weight).sum(), wanted)
    assert_close(found, torch.autograd.grad((expected * weight).sum(), wanted), 1e-6)


@pytest.mark.parametrize("kind", CELLS)
def test_in_training_mode_it_is_one_map_that_keeps_samples_apart(kind):
    """The first solve looks for coupled samples and noise, and would warn, which is an error here."""
    cell, x = cell_and_input(kind, batch=16)
    layer = Equilibrium(cell, Anderson(rtol=1e-8))
    assert layer.solve(x).ok and layer.counters.checked


def test_the_dense_weight_is_computed_once_a_solve():
    cell, x = cell_and_input("dense")
    calls = []
    cell.linear.parametrizations["weight"][0].register_forward_hook(lambda *_: calls.append(1))
    layer = Equilibrium(cell, **EXACT)
    solution = layer.solve(x)
    solution.state.sum().backward()
    assert solution.evaluations > 5 and len(calls) == 1


@pytest.mark.parametrize("kind", CELLS)
def test_views_are_injected_by_their_own_statistics(kind):
    cell, x = cell_and_input(kind)
    twin, _ = cell_and_input(kind)
    other = 5 * x[:3] + 2
    assert torch.equal(cell.inject((x, other)), torch.cat([twin.inject(x), twin.inject(other)]))
    for one, two in zip(cell.injection.buffers(), twin.injection.buffers(), strict=True):
        assert torch.equal(one, two)


def test_channels_last_changes_the_memory_and_not_the_numbers():
    cell, x = cell_and_input("conv")
    layer = Equilibrium(cell, **EXACT).eval()
    expected = layer(x)
    layer.to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
    assert cell.inject(x).is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(layer(x), expected, atol=1e-9)


def test_groups_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="channels=12 do not divide into groups=8"):
        ConvCell(3, 12)
