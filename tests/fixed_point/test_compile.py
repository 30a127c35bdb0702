"""Compiled cells, and compiled models that hold an equilibrium: the eager numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._functorch import config

import poise
from poise import Anderson, Equilibrium, Implicit, Picard, Reversible, Unrolled

BACKEND = "aot_eager"  # the compiler's capture, its autograd and its guards, without the minutes of code generation


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Cell(nn.Module):
    """With inner activations that the compiler would give away in the first backward."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(8, 16).double(), nn.Linear(16, 8).double()
        for layer in (self.a, self.b):
            nn.init.orthogonal_(layer.weight, gain=0.8)

    def forward(self, z, x):
        return torch.tanh(self.b(F.gelu(self.a(z)).softmax(dim=-1) * 4) + x)


ADJOINTS = {
    "implicit": (Implicit(), Anderson(rtol=1e-8)),
    "unrolled": (Unrolled(), Picard(rtol=None, max_steps=5)),
    "reversible": (Reversible(), Picard(damping=0.5, rtol=None, max_steps=6)),
}


def inputs():
    return torch.linspace(-1, 1, 32).reshape(4, 8).double()


def gradients(model, retain_graph=False):
    loss = model(inputs()).square().sum()
    return torch.autograd.grad(loss, list(model.parameters()), retain_graph=retain_graph), loss


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ADJOINTS)
def test_a_compiled_cell_has_the_eager_gradient(name):
    adjoint, solver = ADJOINTS[name]
    layer = Equilibrium(Cell(), solver, adjoint)
    expected, _ = gradients(layer)
    counter = CompileCounterWithBackend(BACKEND)
    layer.cell.compile(backend=counter)
    assert_close(gradients(layer)[0], expected)
    assert counter.frame_count > 0


def test_a_compiled_cell_under_a_retained_graph():
    """What the caller retains needs the compiler's setting, as with any compiled module; the products need nothing."""
    layer = Equilibrium(Cell(), Anderson(rtol=1e-8))
    expected, _ = gradients(layer)
    layer.cell.compile(backend=BACKEND)
    with pytest.raises(RuntimeError, match="donated_buffer=False"):
        gradients(layer, retain_graph=True)
    torch._dynamo.reset()
    with config.patch(donated_buffer=False):
        found, loss = gradients(layer, retain_graph=True)
        assert_close(found, expected)
        assert_close(torch.autograd.grad(loss, list(layer.parameters())), expected)


def test_a_second_derivative_of_a_compiled_cell_is_refused_by_the_compiler():
    layer, x = Equilibrium(Cell()), inputs().requires_grad_()
    layer.cell.compile(backend=BACKEND)
    with (
        config.patch(donated_buffer=False),
        pytest.raises(RuntimeError, match="does not currently support double backward"),
    ):
        (slope,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
        slope.square().sum().backward()


def test_samples_that_leave_the_batch_do_not_recompile_the_cell():
    """Graphs are made for the first size, any other, one row, and with gradients; after 8 the compiler gives up."""

    def f(z, x):
        return x[:, -1:] * torch.sin(z) + x[:, :-1]

    counter = CompileCounterWithBackend(BACKEND)
    compiled = torch.compile(f, backend=counter)
    seen = []
    for step in range(3):
        x = torch.cat([torch.randn(24 - step, 3), torch.linspace(0.1, 0.9, 24 - step).unsqueeze(1)], dim=1)
        states = [
            poise.fixed_point(g, torch.zeros(len(x), 3), x.requires_grad_(), solver=Picard(rtol=1e-6, max_steps=400))
            for g in (f, compiled)
        ]
        assert states[1].rows < len(x) * states[1].evaluations and torch.equal(states[0].state, states[1].state)
        states[1].state.sum().backward()
        seen.append(counter.frame_count)
    assert seen[0] == seen[-1] <= 6 < torch._dynamo.config.recompile_limit


@pytest.mark.parametrize("name", ["implicit", "unrolled"])
def test_a_compiled_model_runs_its_equilibrium_as_written(name):
    adjoint, solver = ADJOINTS[name]
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 8), Equilibrium(Cell(), solver, adjoint), nn.Linear(8, 2)).double()
    expected, _ = gradients(model)
    solves = model[1].counters.forward.solves
    counter = CompileCounterWithBackend(BACKEND)
    compiled = torch.compile(model, backend=counter)
    for _ in range(2):
        assert_close(gradients(compiled)[0], expected)
    assert model[1].counters.forward.solves == solves + 2 and counter.frame_count >= 1


def test_a_compiled_function_around_fixed_point():
    @torch.compile(backend=BACKEND)
    def double(x):
        return 2 * poise.fixed_point(lambda z, x: 0.5 * z + x, torch.zeros_like(x), 3 * x).state

    x = torch.ones(2, 3, requires_grad=True)
    out = double(x)
    assert torch.allclose(out, torch.full((2, 3), 12.0), rtol=1e-3)
    (found,) = torch.autograd.grad(out.sum(), x)
    assert torch.allclose(found, torch.full((2, 3), 12.0), rtol=1e-3)
