"""Solvers and adjoints from settings, and the totals of their solves."""

import pytest
import torch

from poise import GMRES, Anderson, Broyden, Equilibrium, Implicit, JacobianFree, Phantom, Picard, Unrolled
from poise.configs.base import AdjointConfig, SolverConfig
from poise.nn import inject
from poise.tasks.solving import CostRecord, SolveTotals, build_adjoint, build_solver, equilibria


@pytest.mark.parametrize(
    ("config", "solver"),
    [
        (
            SolverConfig(name="picard", rtol=None, max_steps=3, damping=0.5, scope="prefix"),
            Picard(rtol=None, max_steps=3, damping=0.5, scope="prefix"),
        ),
        (
            SolverConfig(name="anderson", rtol=1e-3, atol=1e-9, history=4, form="type2", damping=0.9),
            Anderson(rtol=1e-3, atol=1e-9, max_steps=100, history=4, form="type2", damping=0.9),
        ),
        (SolverConfig(name="broyden", history=7, damping=0.5), Broyden(max_steps=100, history=7, step_length=0.5)),
    ],
)
def test_a_solver_has_the_settings_given(config, solver):
    assert build_solver(config) == solver


@pytest.mark.parametrize(
    ("config", "adjoint"),
    [
        (
            AdjointConfig(name="implicit", rtol=1e-4, max_steps=9),
            Implicit(solver=GMRES(rtol=1e-4, max_steps=9), second_order=False),
        ),
        (AdjointConfig(name="phantom", steps=3, damping=0.5), Phantom(steps=3, damping=0.5)),
        (AdjointConfig(name="phantom", recorded_only=True), Phantom(steps=5, damping=0.7, recorded_only=True)),
        (AdjointConfig(name="jacobian_free"), JacobianFree()),
        (AdjointConfig(name="unrolled"), Unrolled()),
    ],
)
def test_an_adjoint_has_the_settings_given(config, adjoint):
    assert build_adjoint(config, SolverConfig(name="picard", damping=0.7)) == adjoint


def test_totals_add_up_over_layers_and_survive_a_checkpoint():
    layers = torch.nn.ModuleList(
        Equilibrium(inject(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())), Picard(rtol=None, max_steps=n))
        for n in (2, 5)
    )
    assert list(equilibria(layers)) == list(layers)
    record = CostRecord(train_seconds=1.5)
    for layer in layers:
        layer(torch.zeros(3, 4))
        record.forward.add(layer.counters.forward)
    assert record.forward.mean_evaluations == 3.5 and record.forward.statuses == {"BUDGET": 6}
    assert CostRecord.from_dict(record.to_dict()) == record
    assert SolveTotals().mean_evaluations == 0.0
