"""Muon against its definition, AdamW against torch's, and the schedule."""

import io
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from poise.configs.base import OptimizerConfig
from poise.models import DEQTransformer, TransformerLM
from poise.nn import normalize
from poise.tasks.optimization import (
    NEWTON_SCHULZ_STEPS,
    QUINTIC,
    Muon,
    build_optimizer,
    orthogonalise,
    split_parameters,
    warmup_cosine,
)


def reference_orthogonal(matrix):
    """Newton-Schulz as Jordan et al. write it, in float64."""
    a, b, c = QUINTIC
    x = matrix.double() if matrix.shape[0] <= matrix.shape[1] else matrix.double().mT
    x = x / x.norm()
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.mT


@given(st.integers(1, 12), st.integers(0, 40), st.integers(1, 3), st.integers(0, 5))
def test_orthogonalise_is_the_published_iteration(rows, more, batch, seed):
    generator = torch.Generator().manual_seed(seed)
    matrices = torch.randn(batch, rows, rows + more, generator=generator)
    expected = torch.stack([reference_orthogonal(matrix) for matrix in matrices])
    assert (orthogonalise(matrices).double() - expected).abs().max() < 2e-4


@pytest.mark.parametrize("shape", [(30, 30), (30, 50), (20, 80)])
def test_orthogonalise_brings_singular_values_near_one(shape):
    left, right = (torch.linalg.qr(torch.randn(2, size, shape[0])).Q for size in shape)
    matrices = left * torch.linspace(0.1, 10, shape[0]) @ right.mT
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.min() > 0.5 and values.max() < 1.3
    assert orthogonalise(torch.zeros(1, 4, 8)).abs().max() == 0


@pytest.mark.parametrize("shape", [(6, 6), (4, 12), (12, 4), (8, 3, 2, 2)])
def test_muon_moves_a_matrix_as_defined(shape):
    weight = nn.Parameter(torch.randn(shape))
    optimizer = Muon([{"params": [weight], "lr": 0.02, "momentum": 0.9, "weight_decay": 0.1, "orthogonal": True}])
    expected, momentum = weight.detach().double().flatten(1), torch.zeros(weight.flatten(1).shape, dtype=torch.float64)
    for _ in range(3):
        gradient = torch.randn(shape)
        weight.grad = gradient.clone()
        optimizer.step()
        flat = gradient.double().flatten(1)
        momentum = 0.9 * momentum + 0.1 * flat
        direction = reference_orthogonal(0.1 * flat + 0.9 * momentum)
        scale = max(1.0, flat.shape[0] / flat.shape[1]) ** 0.5
        expected = expected * (1 - 0.02 * 0.1) - 0.02 * scale * direction
        assert torch.equal(weight.grad, gradient)  # the gradient is not used up
    assert (weight.detach().double().flatten(1) - expected).abs().max() < 1e-5


def test_matrices_of_one_shape_move_together_as_alone():
    tall, wide, square = torch.randn(12, 4), torch.randn(4, 12), torch.randn(4, 4)
    together = [nn.Parameter(m.clone()) for m in (tall, wide, square, 2 * tall)]
    alone = [nn.Parameter(m.clone()) for m in (tall, wide, square, 2 * tall)]
    gradients = [torch.randn_like(weight) for weight in together]
    optimizers = [Muon([{"params": together}]), *(Muon([{"params": [weight]}]) for weight in alone)]
    for weights in (together, alone):
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient.clone()
    for optimizer in optimizers:
        optimizer.step()
    for one, other in zip(together, alone, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_matrices_below_each_other_move_as_alone():
    stacked, alone = nn.Parameter(torch.randn(12, 6)), nn.Parameter(torch.randn(5, 4))
    parts = [nn.Parameter(part.clone()) for part in stacked.detach().chunk(3)]
    same = nn.Parameter(alone.detach().clone())
    settings = {"lr": 0.1, "weight_decay": 0.3}
    one = Muon([{"params": [stacked, alone], "maps": [3, 1], **settings}])
    other = Muon([{"params": [*parts, same], **settings}])
    for _ in range(3):
        stacked.grad, alone.grad = torch.randn(12, 6), torch.randn(5, 4)
        for part, gradient in zip(parts, stacked.grad.chunk(3), strict=True):
            part.grad = gradient.clone()
        same.grad = alone.grad.clone()
        one.step()
        other.step()
    assert torch.allclose(stacked, torch.cat(parts), atol=1e-6) and torch.allclose(alone, same, atol=1e-6)


@pytest.mark.parametrize("weight_norm", [False, True])
@pytest.mark.parametrize("build", [DEQTransformer, TransformerLM])
def test_queries_keys_and_values_are_three_matrices(build, weight_norm):
    model = build(11, 8, 2, 2, weight_norm=weight_norm)
    (group, _) = build_optimizer(model, OptimizerConfig()).param_groups
    names = {id(weight): name for name, weight in model.named_parameters()}
    stacked = {names[id(w)] for w, maps in zip(group["params"], group["maps"], strict=True) if maps == 3}
    assert set(group["maps"]) == {1, 3}
    assert stacked == {name for name, weight in model.named_parameters() if "qkv" in name and weight.shape == (24, 8)}


def test_a_run_saved_before_there_were_maps_goes_on_with_one_matrix_a_weight():
    weight = nn.Parameter(torch.randn(6, 2))
    optimizer = Muon([{"params": [weight], "maps": [3]}])
    saved = optimizer.state_dict()
    del saved["param_groups"][0]["maps"]
    optimizer.load_state_dict(saved)
    same = nn.Parameter(weight.detach().clone())
    weight.grad = same.grad = torch.randn(6, 2)
    optimizer.step()
    Muon([{"params": [same]}]).step()
    assert torch.equal(weight, same)


@pytest.mark.parametrize("maps", [[4], [3, 3], []])
def test_maps_that_cannot_be_are_refused(maps):
    with pytest.raises(ValueError, match="weights with \\[6\\] rows; pass one number for each, a divisor"):
        Muon([{"params": [nn.Parameter(torch.ones(6, 2))], "maps": maps}])


def test_the_other_weights_move_as_by_torchs_adamw():
    first, second = (nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2))
    settings = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.2}
    ours = Muon([{"params": [first], "orthogonal": False, **settings}])
    theirs = torch.optim.AdamW([second], **settings)
    for _ in range(5):
        first.grad = second.grad = torch.randn(7)
        ours.step()
        theirs.step()
    assert torch.allclose(first, second, rtol=1e-5, atol=1e-6)


def test_state_is_plain_and_goes_on_exactly():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    config = OptimizerConfig(warmup_steps=2)

    def steps(model, optimizer, number):
        for _ in range(number):
            generator = torch.Generator().manual_seed(1)
            for weight in model.parameters():
                weight.grad = torch.randn(weight.shape, generator=generator)
            optimizer.step()

    optimizer = build_optimizer(model, config)
    steps(model, optimizer, 2)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    again.load_state_dict(saved["model"])
    resumed = build_optimizer(again, config)
    resumed.load_state_dict(saved["optimizer"])
    steps(model, optimizer, 2)
    steps(again, resumed, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_weights_without_a_gradient_stay():
    used, unused = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3, 3))
    used.grad = torch.ones(3, 3)
    Muon([{"params": [used, unused]}]).step()
    assert torch.equal(unused, torch.ones(3, 3)) and not torch.equal(used, unused)


@pytest.mark.parametrize("model", [DEQTransformer(11, 8, 2), TransformerLM(11, 8, 2, 2)])
def test_embedding_norms_and_biases_are_no_matrices(model):
    matrices, rest = split_parameters(model)
    names = {id(weight): name for name, weight in model.named_parameters()}
    assert {names[id(weight)] for weight in matrices} == {
        name for name, weight in model.named_parameters() if weight.ndim == 2 and "embedding" not in name
    }
    assert len(matrices) + len(rest) == len(list(model.parameters())) and matrices


@pytest.mark.parametrize(
    "model",
    [
        DEQTransformer(40, 8, 2, cutoffs=(9, 20), div_value=2.0),
        TransformerLM(40, 8, 2, 2, cutoffs=(9, 20), div_value=2),
    ],
)
def test_of_an_adaptive_vocabulary_the_projections_alone_are_matrices(model):
    matrices, rest = split_parameters(model)
    of_blocks = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embedding" not in name]
    chosen, blocks = {id(weight) for weight in matrices}, {id(weight) for weight in of_blocks}
    assert blocks < chosen and len(matrices) + len(rest) == len(list(model.parameters()))
    # Shortlist of 9 with two rows for clusters, clusters of 11 and 20; their vectors have 4 and 2 features.
    projections = [tuple(weight.shape) for weight in matrices if id(weight) not in blocks]
    tables = [tuple(weight.shape) for weight in rest if weight.ndim == 2]
    assert sorted(projections) == [(2, 8), (4, 8)] and sorted(tables) == [(11, 4), (11, 8), (20, 2)]


def test_the_lengths_of_normalised_weights_are_no_matrices():
    layer = normalize(nn.Conv2d(3, 8, 3), "weight")
    matrices, rest = split_parameters(nn.ModuleDict({"layer": layer}))
    assert [tuple(weight.shape) for weight in matrices] == [(8, 3, 3, 3)]
    assert sorted(tuple(weight.shape) for weight in rest) == [(8,), (8, 1, 1, 1)]


def test_a_head_of_its_own_is_no_matrix_and_frozen_weights_are_left_out():
    model = nn.ModuleDict({"body": nn.Linear(4, 4), "head": nn.Linear(4, 9), "conv": nn.Conv2d(3, 4, 3)})
    model["body"].bias.requires_grad_(False)
    matrices, rest = split_parameters(model)
    assert {tuple(weight.shape) for weight in matrices} == {(4, 4), (4, 3, 3, 3)}
    assert sorted(tuple(weight.shape) for weight in rest) == [(4,), (9,), (9, 4)]


def test_the_schedule_warms_up_and_ends_at_its_floor():
    weight = nn.Parameter(torch.zeros(2, 2))
    config = OptimizerConfig(matrix_lr=1.0, warmup_steps=10, final_lr_ratio=0.02)
    optimizer = Muon([{"params": [weight], "lr": 1.0}])
    schedule = warmup_cosine(optimizer, config, max_steps=110)
    factors = []
    for _ in range(120):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert factors[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert factors[60] == pytest.approx(0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert factors[110] == factors[119] == pytest.approx(0.02)
    assert factors[10:] == sorted(factors[10:], reverse=True)
