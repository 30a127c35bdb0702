"""Normalised cells: the gradient of the parameters behind the weights, once a solve, in every adjoint and order."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn

import poise
from poise import GMRES, Anderson, Equilibrium, Implicit, JacobianFree, Phantom, Picard, Unrolled
from poise.nn import inject, normalize, remove_normalization
from poise.nn.parametrized import computed_weights, held
from tests.nn.test_equilibrium import Cell, assert_close, inputs, unrolled

EXACT = {"solver": Anderson(rtol=1e-12), "adjoint": Implicit(GMRES(rtol=1e-12))}


def normalised(kind, **options):
    """A layer whose cell contracts: in evaluation mode nothing moves, so an unrolled oracle sees the same weights."""
    layer = Equilibrium(Cell(), **{**EXACT, **options})
    normalize(layer.cell, kind, **({"n_power_iterations": 3} if kind == "spectral" else {}))
    if kind == "spectral":
        layer.cell.forward = lambda z, context: torch.tanh(0.8 * layer.cell.w(z) + context)
    return layer


@pytest.mark.parametrize("kind", ["weight", "spectral"])
@pytest.mark.parametrize("adjoint", [Implicit(GMRES(rtol=1e-12)), Unrolled(), Unrolled(checkpoint=True), Phantom(60)])
def test_gradients_reach_the_originals_exactly(kind, adjoint):
    layer = normalised(kind, adjoint=adjoint).eval()
    names = [name for name, _ in layer.named_parameters()]
    assert any("original" in name for name in names)
    expected = unrolled(layer)
    layer(inputs()).square().sum().backward()
    assert_close([p.grad for p in layer.parameters()], expected)


@pytest.mark.parametrize("kind", ["weight", "spectral"])
def test_training_mode_solves_one_deterministic_cell(kind):
    """The vectors of spectral norm move once a solve, not once an evaluation; the next mode sees where they stopped."""
    layer = normalised(kind)
    x = inputs()
    solution = layer.solve(x)  # a CellWarning would be an error here
    assert solution.ok
    found = torch.autograd.grad(solution.state.square().sum(), list(layer.parameters()))
    assert_close(found, unrolled(layer.eval()))


def test_weights_are_computed_once_a_solve():
    layer = normalised("weight")
    calls = []
    for list_ in (layer.cell.w.parametrizations["weight"], layer.cell.u.parametrizations["weight"]):
        list_[0].register_forward_hook(lambda *_: calls.append(1))
    solution = layer.solve(inputs())
    solution.state.square().sum().backward()
    assert solution.evaluations > 5 and len(calls) == 2
    layer(inputs())
    assert len(calls) == 4


@pytest.mark.parametrize("kind", ["weight", "spectral"])
def test_second_order_is_the_unrolled_one(kind):
    layer = normalised(kind)
    x = inputs().requires_grad_()
    wanted = list(layer.parameters())

    def penalty(state):
        (slope,) = torch.autograd.grad(state.square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), wanted)

    found = penalty(layer(x))  # in training mode
    layer.eval()
    context, z = layer.cell.inject(x), torch.zeros_like(x)
    for _ in range(120):
        z = layer.cell(z, context)
    assert_close(found, penalty(z), 1e-7)


def test_a_changed_parameter_is_seen_by_the_next_solve():
    layer = normalised("weight")
    first = layer(inputs())
    with torch.no_grad():
        layer.cell.w.parametrizations["weight"].original0.mul_(0.5)
    assert (layer(inputs()) - first).abs().max() > 1e-3


def test_a_layer_within_a_layer_keeps_the_outer_weights():
    torch.manual_seed(0)
    inner = Equilibrium(inject(nn.Sequential(nn.Linear(5, 5), nn.Tanh())).double(), **EXACT)
    nn.init.orthogonal_(inner.cell.block[0].weight, gain=0.5)

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, z, x):
            return self.inner(0.5 * z + x)

    outer = Equilibrium(normalize(Outer(), "weight"), **EXACT)
    outer(inputs()).sum().backward()
    found = [p.grad for p in outer.parameters()]
    z = inputs()
    state = torch.zeros_like(z)
    for _ in range(60):
        deep = torch.zeros_like(z)
        for _ in range(60):
            deep = inner.cell(deep, 0.5 * state + z)
        state = deep
    assert_close(found, torch.autograd.grad(state.sum(), list(outer.parameters())))
    assert all("forward" not in vars(module) for module in outer.modules())


def test_weights_held_by_threads_that_share_a_layer_are_let_go_in_any_order():
    layer = normalised("weight")
    one, two = held(computed_weights(layer.cell)), held(computed_weights(layer.cell))
    one.__enter__()
    with torch.no_grad():
        layer.cell.w.parametrizations["weight"].original0.mul_(0.5)
    two.__enter__()
    one.__exit__(None, None, None)
    two.__exit__(None, None, None)
    assert_close(torch.autograd.grad(layer(inputs()).square().sum(), list(layer.parameters())), unrolled(layer))
    assert all("forward" not in vars(module) for module in layer.modules())


def test_state_dicts_copies_and_removal():
    layer = normalised("weight")
    state = layer(inputs())
    state.sum().backward()
    twin = copy.deepcopy(layer)
    other = normalised("weight")
    other.load_state_dict(layer.state_dict())
    for one in (twin, other):
        assert torch.equal(one(inputs()), state)
    assert sorted(layer.state_dict()) == [
        f"cell.{part}.{name}"
        for part in "uw"
        for name in ("bias", "parametrizations.weight.original0", "parametrizations.weight.original1")
    ]
    remove_normalization(layer)
    assert type(layer.cell.w) is nn.Linear and sorted(layer.state_dict()) == sorted(Equilibrium(Cell()).state_dict())
    assert torch.allclose(layer(inputs()), state, atol=1e-10)


def test_every_linear_and_convolution_layer_is_normalised():
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ConvTranspose1d(2, 2, 1), nn.Linear(3, 3))
    assert normalize(module, "spectral") is module
    assert [hasattr(layer, "parametrizations") for layer in module] == [True, False, True, True]
    weight = module[3].weight.detach()
    assert torch.linalg.matrix_norm(weight, 2) == pytest.approx(1.0, rel=1e-2)


def test_what_cannot_be_normalised_is_refused_in_one_sentence():
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    cases = [
        (nn.Tanh(), "weight", "Tanh holds no linear"),
        (nn.Linear(2, 2), "batch", "kind='batch'"),
        (normalize(nn.Linear(2, 2), "weight"), "spectral", "the module is parametrized already"),
        (tied, "weight", "0 and 1 share one weight"),
    ]
    for module, kind, message in cases:
        with pytest.raises(ValueError, match=message):
            normalize(module, kind)


@pytest.mark.parametrize("adjoint", [JacobianFree(), Implicit()])
def test_under_no_grad_nothing_is_recorded(adjoint):
    layer = normalised("weight", adjoint=adjoint)
    with torch.no_grad():
        assert not layer(inputs()).requires_grad


def test_a_compiled_cell_is_not_compiled_anew_for_every_solve():
    compiled = []

    def backend(graph, _):
        compiled.append(graph)
        return graph

    cell = normalize(inject(nn.Sequential(nn.Linear(5, 5), nn.Tanh())), "weight")
    nn.init.constant_(cell.block[0].parametrizations["weight"].original0, 0.5)
    layer = Equilibrium(torch.compile(cell, backend=backend), Picard(rtol=1e-6))
    layer.counters.checked = True
    x = torch.randn(4, 5)
    expected = Equilibrium(cell, Picard(rtol=1e-6))(x)
    first = layer(x)
    assert torch.allclose(first, expected, atol=1e-6)
    before = len(compiled)
    with torch.no_grad():
        cell.block[0].parametrizations["weight"].original0.mul_(0.5)
    moved = layer(x)
    assert len(compiled) == before and torch.allclose(moved, Equilibrium(cell, Picard(rtol=1e-6))(x), atol=1e-6)
    assert (moved - first).abs().max() > 1e-3


def test_ddp_gives_the_same_gradients(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        layer = normalised("weight")
        nn.parallel.DistributedDataParallel(layer)(inputs()).square().sum().backward()
        assert_close([p.grad for p in layer.parameters()], unrolled(layer))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("dim", [0, 1, -1, None])
@pytest.mark.parametrize("layer", [nn.Linear(4, 3), nn.Conv2d(2, 3, 2), nn.ConvTranspose1d(2, 3, 2)], ids=str)
def test_weight_normalisation_is_torchs_with_a_right_second_derivative(layer, dim):
    ours, theirs = copy.deepcopy(layer).double(), copy.deepcopy(layer).double()
    normalize(ours, "weight", dim=dim)
    torch.nn.utils.parametrizations.weight_norm(theirs, "weight", dim=dim)
    assert torch.allclose(ours.weight, theirs.weight) and torch.allclose(ours.weight, layer.double().weight)
    ours.load_state_dict(theirs.state_dict())
    names = list(dict(ours.named_parameters()))
    assert names == list(dict(theirs.named_parameters()))
    originals = [parameter for name, parameter in ours.named_parameters() if "original" in name]
    list_of_weights = ours.parametrizations.weight
    assert torch.autograd.gradgradcheck(lambda g, v: list_of_weights[0](g, v).tanh(), originals)


@pytest.mark.parametrize("kind", ["weight", "spectral"])
def test_a_measurement_moves_nothing(kind):
    """Spectral normalisation moves its vectors in training mode at every computation of the weight."""
    torch.manual_seed(0)
    cell = inject(nn.Sequential(normalize(nn.Linear(6, 6), kind), nn.Tanh())).train()
    layer = Equilibrium(cell)
    x = torch.randn(3, 6)
    solution = layer.solve(x)
    before = {name: value.clone() for name, value in cell.state_dict().items()}
    poise.nn.spectral_radius(cell, solution.state.detach(), solution.context)
    generator = torch.Generator().manual_seed(0)
    penalty = poise.nn.jacobian_penalty(cell, solution.state.detach(), solution.context, generator=generator)
    penalty.backward()
    assert all(torch.equal(value, before[name]) for name, value in cell.state_dict().items())
    assert all(part.training for part in cell.modules()) and penalty > 0
    assert cell.block[0].parametrizations.weight.original0.grad is not None if kind == "weight" else True
