"""What a torchdeq 0.1.0 layer and its companions cannot do as modules; in each pair poise comes first."""

import copy
import pickle

import pytest
import torch
from torch import nn

import poise
from poise import Equilibrium


def layer_of(n=4):
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(n, n), nn.Tanh())
    nn.init.orthogonal_(block[0].weight, gain=0.8)
    return Equilibrium(poise.nn.inject(block))


# Copies.


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_layer_can_be_copied_before_and_after_a_backward(copied):
    layer, x = layer_of(), torch.randn(3, 4)
    layer(x).sum().backward()
    twin = copied(layer)
    assert torch.equal(twin(x), layer(x))
    twin(x).sum().backward()
    layer.zero_grad()
    layer(x).sum().backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(twin.parameters(), layer.parameters(), strict=True))


@pytest.mark.parametrize("options", [{}, {"ift": True}], ids=str)
def test_torchdeqs_layer_cannot_be_pickled(torchdeq, options):
    layer = torchdeq.get_deq(**options)
    copy.deepcopy(layer)
    with pytest.raises((AttributeError, pickle.PicklingError), match="local"):
        pickle.dumps(layer)


# An empty batch.


def test_an_empty_batch_has_an_empty_state():
    x = torch.zeros(0, 4, requires_grad=True)
    state = layer_of()(x)
    state.sum().backward()
    assert state.shape == x.grad.shape == (0, 4)


@pytest.mark.parametrize("solver", ["fixed_point_iter", "anderson", "broyden"])
def test_torchdeq_fails_on_an_empty_batch(torchdeq, solver):
    layer = torchdeq.get_deq(f_solver=solver)
    with pytest.raises((RuntimeError, IndexError)):
        layer(lambda z: 0.5 * z, torch.zeros(0, 4))


# Compilation.


def test_torchdeqs_solve_cannot_be_compiled_whole(torchdeq):
    layer = torchdeq.get_deq(f_solver="anderson")

    def network(x):
        return layer(lambda z: torch.tanh(0.5 * z + x), torch.zeros_like(x))[0][0]

    assert network(torch.ones(3, 4)).shape == (3, 4)
    with pytest.raises(RuntimeError, match="ata-dependent"):
        torch.compile(network, fullgraph=True, backend="eager")(torch.ones(3, 4))


# The spectral radius.


def test_the_spectral_radius_of_a_complex_pair_is_right_and_the_state_is_left_as_it_is():
    turn = 0.9 * torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    found = poise.nn.spectral_radius(lambda z: z @ turn.T, z, generator=torch.Generator().manual_seed(1))
    assert found.radius.tolist() == pytest.approx([0.9] * 3, rel=1e-5)
    assert not z.requires_grad


def test_torchdeqs_power_method_does_not_see_a_complex_pair(torchdeq):
    """A rotation by a right angle times 0.9 has the eigenvalues +-0.9 i; its Rayleigh quotients are 0."""
    turn = 0.9 * torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    z = torch.randn(3, 2).requires_grad_()
    _, radius = torchdeq.power_method(z @ turn.T, z)
    assert torch.linalg.eigvals(turn).abs() == pytest.approx([0.9, 0.9])
    assert radius.max() < 1e-3


def test_torchdeqs_radius_of_a_layer_leaves_its_state_attached(torchdeq):
    layer = torchdeq.get_deq(f_tol=1e-6).eval()
    (state,), record = layer(lambda z: 0.5 * z + 1, torch.zeros(3, 2), sradius_mode=True)
    assert record["sradius"].shape == (3,)
    assert state.requires_grad  # a solve in evaluation mode asks for gradients once the radius is asked for


# Losses over the trajectory.


def test_a_trajectory_correction_needs_no_gpu():
    states, target = [torch.zeros(2, 3), torch.full((2, 3), 0.5)], torch.ones(2, 3)
    loss = poise.nn.trajectory_correction(lambda z: nn.functional.mse_loss(z, target), states, gamma=1.0)
    assert loss.item() == pytest.approx(1.0 + 0.25)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the defect is that a CPU does not suffice")
def test_torchdeqs_constant_weights_need_a_gpu(torchdeq):
    states, target = [torch.zeros(2, 3), torch.ones(2, 3)], torch.ones(2, 3)
    torchdeq.fp_correction(nn.functional.mse_loss, (states, target))
    with pytest.raises((AssertionError, RuntimeError), match=r"CUDA|NVIDIA"):
        torchdeq.fp_correction(nn.functional.mse_loss, (states, target), weight_func="const")
