"""A diagnosis names the fault that was planted, calls a healthy layer healthy, and changes nothing."""

import copy
import warnings

import pytest
import torch
from torch import nn

import poise
from poise import Anderson, Equilibrium, Implicit, JacobianFree, Neumann, Phantom, Picard, Reversible, Unrolled
from poise.nn import TransformerCell, diagnose, dropout_mask, normalize
from tests.nn.planted_cells import (
    SHORT,
    Cell,
    Norm,
    averaging,
    deaf,
    expansive,
    inputs,
    noisy,
    root_of_zero,
    without_derivative,
)

PLANTED = {
    "expansive cell": [
        Equilibrium(Cell(expansive), Picard()),
        Equilibrium(Cell(expansive)),
        Equilibrium(Cell(gain=4.0), Picard(max_steps=60)),
        Equilibrium(Cell(lambda linear, z, x: 4 * z + x)),  # which Anderson solves
        Equilibrium(Cell(expansive), Picard(rtol=None, max_steps=8)),
    ],
    "batch-coupled cell": [Equilibrium(Cell(averaging)), Equilibrium(Norm()), Equilibrium(Cell(averaging), Picard())],
    "context ignored": [Equilibrium(Cell(deaf)), Equilibrium(Cell(deaf), Picard())],
    "non-deterministic cell": [Equilibrium(Cell(noisy)), Equilibrium(Cell(noisy), Picard(max_steps=30))],
    "tolerance below the float floor": [
        Equilibrium(Cell(), Anderson(rtol=1e-9)),
        Equilibrium(Cell(), Picard(rtol=1e-8, max_steps=300)),
        Equilibrium(Cell(), Anderson(rtol=1e-8, max_steps=25)),
    ],
    "starved backward budget": [
        Equilibrium(Cell(), adjoint=SHORT),
        Equilibrium(Cell(), adjoint=Implicit(Picard(max_steps=3))),
        Equilibrium(Cell(), adjoint=Implicit(Neumann(terms=1))),
    ],
    "starved forward budget": [
        Equilibrium(Cell(gain=0.95), Picard(max_steps=8)),
        Equilibrium(Cell(gain=0.95), Picard(rtol=None, max_steps=3)),
    ],
    "approximate gradient": [
        Equilibrium(Cell(gain=0.95), adjoint=JacobianFree()),
        Equilibrium(Cell(gain=0.95), adjoint=Phantom(1)),
    ],
    "non-finite derivative": [
        Equilibrium(Cell(without_derivative)),
        Equilibrium(Cell(root_of_zero)),
        Equilibrium(Cell(without_derivative), adjoint=JacobianFree()),
        Equilibrium(Cell(without_derivative), adjoint=Implicit(Neumann(terms=3))),
    ],
    "inexact backward": [Equilibrium(Cell(gain=0.9), Picard(damping=0.8, rtol=1e-6), Reversible())],
    "loose tolerance": [Equilibrium(Cell(gain=0.97), Picard(rtol=0.3))],
    "diverging solver": [
        Equilibrium(Cell(lambda linear, z, x: x - 0.9 * z), Picard(damping=1.9, max_steps=60)),
    ],
}


@pytest.mark.parametrize(
    ("fault", "layer"),
    [
        pytest.param(fault, layer, id=f"{fault}-{i}")
        for fault, layers in PLANTED.items()
        for i, layer in enumerate(layers)
    ],
)
def test_the_first_line_names_the_fault(fault, layer):
    diagnosis = diagnose(layer, inputs())
    assert str(diagnosis).splitlines()[0].startswith(f"{fault}: ")
    assert diagnosis.findings[0].name == fault and not diagnosis.healthy and fault in repr(diagnosis)


HEALTHY = {
    "plain": (Equilibrium(Cell()), inputs()),
    "evaluation": (Equilibrium(Cell(), Picard(max_steps=2), eval_solver=Anderson()).eval(), inputs()),
    "float64": (Equilibrium(Cell()).double(), inputs().double()),
    "batch norm in evaluation": (Equilibrium(Norm()).eval(), inputs()),
    "one sample": (Equilibrium(Cell()), inputs(1)),
    "unrolled": (Equilibrium(Cell(gain=0.5), adjoint=Unrolled()), inputs()),
    "phantom": (Equilibrium(Cell(gain=0.5), adjoint=Phantom(8)), inputs()),
    "fixed budget": (Equilibrium(Cell(gain=0.5), Picard(rtol=None, max_steps=15)), inputs()),
    "frozen": (Equilibrium(Cell()).requires_grad_(False), inputs()),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_layer_is_called_healthy(name):
    layer, x = HEALTHY[name]
    diagnosis = poise.diagnose(layer, x)
    assert diagnosis.healthy and str(diagnosis).startswith("healthy: all")
    assert diagnosis.accuracy.gradient < 0.01 and diagnosis.dynamics.radius < 1


def test_noise_drawn_once_a_solve_and_spectral_norm_in_training_are_healthy():
    torch.manual_seed(0)
    transformer = Equilibrium(TransformerCell(16, 2, 1, 32, dropout=0.2), Anderson(scope="prefix", max_steps=300))
    assert diagnose(transformer, torch.randn(4, 5, 16)).healthy
    cell = normalize(Cell(lambda linear, z, x: torch.tanh(0.8 * linear(z) + x)), "spectral")
    assert diagnose(Equilibrium(cell), inputs()).healthy


@pytest.mark.parametrize("seed", range(4))
def test_noise_that_may_spare_a_sample_is_still_noise(seed):
    """A mask on four numbers is often empty: one sample alone may twice come out the same."""
    assert diagnose(Equilibrium(Cell(noisy, n=4)), inputs(n=4), seed=seed).findings[0].name == "non-deterministic cell"


def test_bad_numbers_are_found_where_they_are():
    x = inputs()
    x[3, 2] = float("nan")
    first = diagnose(Equilibrium(Cell()), x)
    assert str(first).startswith("non-finite inputs: 1 of 10 samples hold NaN or infinity, the first of them sample 3")
    assert first.dynamics.radius is not None and first.accuracy.gradient < 0.01  # of the other samples
    layer = Equilibrium(Cell())
    layer.cell.linear.weight.data[0, 0] = float("inf")
    assert str(diagnose(layer, inputs())).startswith("non-finite weights: cell.linear.weight holds")
    assert str(diagnose(Equilibrium(Cell(lambda linear, z, x: torch.sqrt(z - 10) + x)), inputs())).startswith(
        "non-finite cell: the cell Cell returns NaN or infinity for 10 of 10"
    )


def test_tuple_states_and_masks():
    class Two(nn.Module):
        def initial_state(self, x):
            return torch.zeros_like(x), x.new_zeros(len(x), 2)

        def forward(self, z, x):
            return 0.5 * torch.tanh(z[0]) + x, 0.1 * z[1] + z[0][:, :2]

    assert diagnose(Equilibrium(Two()), inputs(4)).healthy
    padded = inputs()
    padded[:, 8:] = 0
    valid = torch.ones(10, 12, dtype=torch.bool)
    valid[:, 8:] = False
    layer = Equilibrium(Cell(lambda linear, z, x: 0.5 * z + x + torch.cat([0 * z[:, :8], 5 * z[:, 8:]], dim=1)))
    assert diagnose(layer, padded, valid=valid).healthy
    assert diagnose(layer, padded).findings[0].name == "expansive cell"


def test_a_solution_that_no_tighter_solve_confirms_is_not_called_healthy():
    """A map that jumps over its diagonal: a loose solve ends near the jump, where there is no fixed point."""
    cell = Cell(lambda linear, z, x: x + 1 + 0.2 * torch.sign(1.05 - z))
    layer = Equilibrium(cell, Picard(rtol=0.5))
    diagnosis = diagnose(layer, torch.linspace(0, 0.01, 3).unsqueeze(1).expand(3, 12).contiguous())
    assert diagnosis.solution.ok and diagnosis.accuracy.gradient is None
    assert diagnosis.summary().startswith("unconfirmed solution: a tighter solve from the layer's own solution ends")


def snapshot(layer):
    return {
        "state": copy.deepcopy(layer.state_dict()),
        "modes": [module.training for module in layer.modules()],
        "wanted": [p.requires_grad for p in layer.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in layer.parameters()],
        "counters": (layer.counters.forward.solves, layer.counters.backward.solves, layer.counters.checked),
        "rng": torch.random.get_rng_state(),
        "options": (layer.solver, layer.adjoint, layer.on_failure),
    }


def test_what_the_layer_raises_is_raised():
    def refuse(linear, z, x):
        if len(z) < 10:
            raise RuntimeError("ten or nothing")
        return averaging(linear, z, x)

    assert diagnose(Equilibrium(Cell(refuse)), inputs()).summary().startswith("batch-coupled cell: ")
    with pytest.raises(RuntimeError, match="ten or nothing"):
        diagnose(Equilibrium(Cell(refuse)), inputs(9))
    with pytest.raises(ValueError, match="returned shape"):
        diagnose(Equilibrium(Cell(lambda linear, z, x: z[:, :2])), inputs())


@pytest.mark.parametrize("kind", ["noisy", "norm", "spectral"])
def test_nothing_is_changed(kind):
    cell = {"noisy": lambda: Cell(noisy), "norm": Norm, "spectral": lambda: normalize(Cell(), "spectral")}[kind]()
    layer = Equilibrium(cell, adjoint=SHORT)
    next(layer.parameters()).grad = torch.ones_like(next(layer.parameters()))
    x = inputs().requires_grad_()
    before = snapshot(layer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = diagnose(layer, x), diagnose(layer, x)
    after = snapshot(layer)
    for name in before:
        for a, b in zip(flat(before[name]), flat(after[name]), strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, name
    assert x.grad is None
    assert first.summary() == second.summary()  # and what is drawn does not depend on the caller's generator


def flat(value):
    if isinstance(value, dict):
        return [part for one in value.values() for part in flat(one)]
    return [part for one in value for part in flat(one)] if isinstance(value, list | tuple) else [value]


def test_masks_of_an_injection_do_not_need_the_callers_generator():
    class Masked(Cell):
        def inject(self, x):
            return x, dropout_mask(x, 0.5)

        def initial_state(self, context):
            return torch.zeros_like(context[0])

        def forward(self, z, context):
            return torch.tanh(self.linear(z) * context[1] * 0.4 + context[0])

    layer = Equilibrium(Masked())
    torch.manual_seed(1)
    first = diagnose(layer, inputs())
    torch.manual_seed(2)
    assert first.residuals == diagnose(layer, inputs()).residuals != diagnose(layer, inputs(), seed=1).residuals


def test_what_cannot_be_diagnosed_is_refused_in_one_sentence():
    with pytest.raises(TypeError, match="takes an Equilibrium and its input, not a Linear"):
        diagnose(nn.Linear(2, 2), inputs())
    with pytest.raises(ValueError, match="empty batch"):
        diagnose(Equilibrium(Cell()), torch.zeros(0, 12))
    layer = Equilibrium(Cell())
    layer.cell.cache = torch.ones(2, requires_grad=True) * 2
    with pytest.raises(TypeError, match="works on a copy, but copying the layer fails"):
        diagnose(layer, inputs())
