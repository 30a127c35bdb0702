"""LARS against its formula in float64, what it excludes, and that it is saved as plain values."""

import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from poise.configs.base import OptimizerConfig
from poise.configs.errors import ConfigError
from poise.tasks.lars import LARS
from poise.tasks.optimization import build_optimizer, warmup_cosine


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))


def train(model, optimizer, seeds):
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for weight in model.parameters():
            weight.grad = torch.randn(weight.shape, generator=generator).to(weight)
        optimizer.step()


@given(
    st.floats(0.01, 10.0), st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.0, 1e-6, 0.1]), st.floats(1e-4, 1.0),
    st.integers(0, 100),
)  # fmt: skip
def test_it_is_its_formula(lr, momentum, decay, trust, seed):
    model = network().double()
    options = {"momentum": momentum, "weight_decay": decay, "trust_coefficient": trust}
    optimizer = LARS(model.named_parameters(), lr, **options)
    weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    velocity = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for step in range(3):
        train(model, optimizer, [seed + step])
        for name, parameter in model.named_parameters():
            update = parameter.grad
            if update.ndim > 1:
                update = update + decay * weights[name]
                update = update * trust * weights[name].norm() / update.norm()
            velocity[name] = momentum * velocity[name] + update
            weights[name] = weights[name] - lr * velocity[name]
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter, weights[name], rtol=1e-10, atol=1e-12), name


def test_the_step_of_a_matrix_does_not_depend_on_the_size_of_its_gradient():
    moved = []
    for size in (1.0, 1000.0):
        model = network()
        before = model[0].weight.detach().clone()
        model[0].weight.grad = size * torch.ones(6, 4)
        LARS(model.named_parameters(), 2.0, weight_decay=0.0).step()
        moved.append(model[0].weight.detach() - before)
        assert moved[-1].norm() / before.norm() == pytest.approx(2e-3, rel=1e-3)
    assert torch.allclose(*moved, rtol=1e-3)


def test_weights_of_zero_and_gradients_of_zero():
    zero, still = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    zero.grad, still.grad = torch.ones(2, 2), torch.zeros(2, 2)
    unused = nn.Parameter(torch.ones(2, 2))
    LARS([("zero", zero), ("still", still), ("unused", unused)], 0.1, weight_decay=0.0).step()
    assert torch.equal(zero, torch.full((2, 2), -0.1))  # unscaled, else it would never leave zero
    assert torch.equal(still, torch.ones(2, 2)) and torch.equal(unused, torch.ones(2, 2))


def test_what_is_excluded_is_names_and_survives_a_safe_load():
    model = network()
    optimizer = LARS(model.named_parameters(), 0.5)
    assert optimizer.param_groups[0]["excluded"] == ["0.bias", "1.weight", "1.bias", "2.bias"]
    train(model, optimizer, [1, 2])
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = network()
    again.load_state_dict(saved["model"])
    resumed = LARS(again.named_parameters(), 0.1, excluded=[])
    resumed.load_state_dict(saved["optimizer"])
    assert resumed.param_groups[0]["excluded"] == optimizer.param_groups[0]["excluded"]
    train(model, optimizer, [3, 4])
    train(again, resumed, [3, 4])
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_named_weights_can_be_excluded():
    model = network()
    before = model[0].weight.detach().clone()
    optimizer = LARS(model.named_parameters(), 1.0, weight_decay=10.0, excluded=["0.weight"])
    train(model, optimizer, [0])
    assert torch.allclose(model[0].weight, before - model[0].weight.grad)


def test_settings_build_it_and_the_schedule_moves_it():
    model = network()
    model[2].weight.requires_grad_(False)
    config = OptimizerConfig(
        name="lars", lr=0.4, momentum=0.9, weight_decay=1e-6, trust_coefficient=2e-3, warmup_steps=4
    )
    optimizer = build_optimizer(model, config)
    assert isinstance(optimizer, LARS)
    (group,) = optimizer.param_groups
    assert group["param_names"] == ["0.weight", "0.bias", "1.weight", "1.bias", "2.bias"]
    assert [group[name] for name in ("lr", "momentum", "weight_decay", "trust_coefficient")] == [0.4, 0.9, 1e-6, 2e-3]
    warmup_cosine(optimizer, config, 100)
    assert group["lr"] == pytest.approx(0.1)


def test_what_does_not_descend_is_refused():
    named = list(network().named_parameters())
    with pytest.raises(ValueError, match="'0.wait', which is no parameter"):
        LARS(named, 0.1, excluded=["0.wait"])
    for options in ({"momentum": 1.0}, {"weight_decay": -1.0}, {"trust_coefficient": 0.0}):
        with pytest.raises(ValueError, match="does not descend"):
            LARS(named, 0.1, **options)
    with pytest.raises(ConfigError, match="trust_coefficient is 0"):
        OptimizerConfig(trust_coefficient=0.0)
