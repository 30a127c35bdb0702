"""The prefix scope: no later position moves an earlier one, to the last bit, at any tolerance."""

import dataclasses

import pytest
import torch

import poise
from poise import Anderson, Broyden, Picard, Status
from poise.nn import TransformerCell

SOLVERS = {
    "picard": Picard(scope="prefix"),
    "anderson_type1": Anderson(scope="prefix"),
    "anderson_type2": Anderson(scope="prefix", form="type2", history=5),
    "broyden": Broyden(scope="prefix"),
    "broyden_line_search": Broyden(scope="prefix", line_search=True),
}


def cell(gain=6.0):
    torch.manual_seed(0)
    cell = TransformerCell(d_model=24, n_heads=4, n_layers=1, d_ff=48)
    with torch.no_grad():
        for parameter in cell.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, gain * 0.04)
    return cell


def inputs(batch=3, length=16):
    return torch.randn(batch, length, 24, generator=torch.Generator().manual_seed(1))


def solve(cell, x, solver, adjoint=None):
    with torch.no_grad():
        return poise.Equilibrium(cell, solver, on_failure="ignore").solve(x)


@pytest.mark.parametrize("options", [{"rtol": None, "max_steps": 8}, {"rtol": 1e-2}, {"rtol": 1e-4}], ids=str)
@pytest.mark.parametrize("name", SOLVERS)
def test_changing_later_tokens_changes_no_earlier_bit(name, options):
    model, solver = cell(), dataclasses.replace(SOLVERS[name], **options)
    x = inputs()
    before = solve(model, x, solver).state
    for position in (1, 7, 15):
        changed = x.clone()
        changed[:, position:] = 5 * torch.randn(3, 16 - position, 24, generator=torch.Generator().manual_seed(position))
        after = solve(model, changed, solver).state
        assert torch.equal(after[:, :position], before[:, :position])
        assert not torch.equal(after[:, position:], before[:, position:])


def test_the_sample_scope_would_leak():
    """The test above can fail: mixing weights of the whole sample carry later tokens into earlier states."""
    model, x = cell(), inputs()
    changed = x.clone()
    changed[:, -1] += 1
    states = [solve(model, value, Anderson(rtol=None, max_steps=8)).state for value in (x, changed)]
    assert not torch.equal(states[0][:, :-1], states[1][:, :-1])


@pytest.mark.parametrize("name", SOLVERS)
def test_a_truncated_sequence_takes_the_same_path(name):
    """What a position gets is what it would get if the text ended there."""
    model, solver = cell().double(), dataclasses.replace(SOLVERS[name], rtol=1e-6)
    x = inputs(1).double()
    whole = solve(model, x, solver)
    part = solve(model, x[:, :5], solver)
    assert torch.allclose(whole.state[:, :5], part.state, rtol=0, atol=1e-10)
    assert part.steps[0] <= whole.steps[0]


@pytest.mark.parametrize("name", SOLVERS)
def test_every_prefix_is_within_the_tolerance(name):
    model, solver = cell(), dataclasses.replace(SOLVERS[name], rtol=1e-4)
    solution = solve(model, inputs(), solver)
    assert (solution.status == Status.CONVERGED).all()
    with torch.no_grad():
        image = model(solution.state, model.inject(inputs()))
    moved = (image - solution.state).square().sum(-1).cumsum(1).sqrt() / image.square().sum(-1).cumsum(1).sqrt()
    assert moved.max() < 2e-4


def test_costs_no_more_evaluations_than_the_sample_scope():
    """On a cell that hardly contracts, where mixing seldom loses a sample (with period 2 or 3, one of these eight)."""
    model, x = cell(), inputs(8, 32)
    for rtol in (1e-3, 1e-6):
        prefix = solve(model, x, Anderson(scope="prefix", rtol=rtol, period=1))
        sample = solve(model, x, Anderson(rtol=rtol, period=1))
        assert prefix.ok and prefix.evaluations <= sample.evaluations + 2


@pytest.mark.parametrize("period", [1, 3])
def test_costs_no_more_where_the_cell_contracts(period):
    model = cell(gain=4.0)
    for rtol in (1e-3, 1e-6):
        prefix, sample = (
            solve(model, inputs(8, 32), Anderson(scope=scope, rtol=rtol, period=period))
            for scope in ("prefix", "sample")
        )
        assert prefix.ok and prefix.evaluations <= sample.evaluations + 2
        # Every prefix must pass, not the whole alone.
        assert prefix.steps.double().mean() <= 1.1 * sample.steps.double().mean()


def test_nan_in_a_later_position_spares_the_earlier_ones():
    model, x = cell(), inputs()
    clean = solve(model, x, Anderson(scope="prefix", rtol=1e-4))
    x = x.clone()
    x[1, 9] = float("nan")
    solution = solve(model, x, Anderson(scope="prefix", rtol=1e-4))
    assert solution.status.tolist() == [Status.CONVERGED, Status.NONFINITE, Status.CONVERGED]
    assert torch.equal(solution.state[1, :9], clean.state[1, :9])
    assert torch.equal(solution.state[[0, 2]], clean.state[[0, 2]])


def test_positions_are_named_by_dimension():
    """A state of (batch, channels, positions) is causal in its last dimension."""
    kernel = 0.3 * torch.randn(4, 4, 3, generator=torch.Generator().manual_seed(0))

    def f(z, x):
        return torch.tanh(torch.nn.functional.conv1d(torch.nn.functional.pad(z, (2, 0)), kernel) + x)

    x = torch.randn(2, 4, 12, generator=torch.Generator().manual_seed(1))
    changed = x.clone()
    changed[:, :, 6:] = 0
    states = [
        poise.fixed_point(f, torch.zeros_like(x), value, solver=Anderson(scope="prefix"), position_dim=2).state
        for value in (x, changed)
    ]
    assert torch.equal(states[0][:, :, :6], states[1][:, :, :6])
    with pytest.raises(ValueError, match="prefix scope needs positions in dimension 3"):
        poise.fixed_point(f, torch.zeros_like(x), x, solver=Anderson(scope="prefix"), position_dim=3)


def test_a_tuple_state_is_causal_too():
    """Two parts of one length, as a gated convolution's (h, c), share their positions."""
    weight = 0.3 * torch.randn(4, 4, generator=torch.Generator().manual_seed(0))

    def f(z, x):
        h, c = z
        before = torch.nn.functional.pad(h, (0, 0, 1, 0))[:, :-1]
        return torch.tanh(before @ weight + x) + 0.2 * c.repeat(1, 1, 2), 0.5 * c + 0.3 * h[..., :2]

    x = torch.randn(2, 10, 4, generator=torch.Generator().manual_seed(1))
    changed = x.clone()
    changed[:, 6:] += 1
    start = torch.zeros(2, 10, 4), torch.zeros(2, 10, 2)
    solver = Anderson(scope="prefix", rtol=1e-3)
    states = [poise.fixed_point(f, start, value, solver=solver).state for value in (x, changed)]
    for before, after in zip(*states, strict=True):
        assert torch.equal(before[:, :6], after[:, :6]) and not torch.equal(before[:, 6:], after[:, 6:])
    with pytest.raises(ValueError, match=r"have \[9, 10\] positions"):
        poise.fixed_point(f, (start[0], torch.zeros(2, 9, 2)), x, solver=solver)
