"""The trellis layer and its cell: their formula, LSTMs as a special case, segments, causality, gradients."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from poise import GMRES, Anderson, Equilibrium, Implicit, Picard, diagnose
from poise.fixed_point.tree import select_rows, tree_leaves
from poise.nn import Segment, TrellisCell, TrellisLayer, spectral_radius
from tests.fixed_point.test_prefix import SOLVERS

EXACT = {"solver": Anderson(rtol=1e-13, max_steps=200, scope="prefix"), "adjoint": Implicit(GMRES(rtol=1e-12))}
KINDS = [TrellisCell, TrellisLayer]


def make(kind=TrellisCell, d_model=4, d_hidden=5, gain=5.0, dtype=torch.float64, **options):
    """A cell with larger weights than it begins with, and biases that are not zero."""
    torch.manual_seed(0)
    cell = kind(d_model, d_hidden, **{"weight_norm": False, **options}).to(dtype)
    with torch.no_grad():
        for name, weight in cell.named_parameters():
            if name.startswith("hidden"):
                weight.mul_(gain)
            elif name.endswith("bias"):
                weight.normal_()
    return cell


def inputs(batch=3, length=7, width=4, seed=1, dtype=torch.float64):
    return torch.randn(batch, length, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_hand(cell, x, layers, before=None, mask=None):
    """The published equations, one number of layers, samples and positions after another."""
    d = cell.d_hidden
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    x = x * cell.norm.weight + cell.norm.bias
    states = []
    for n, text in enumerate(x):
        h0, c0, x0 = (part[n] for part in before) if before else (x.new_zeros(d), x.new_zeros(d), 0 * text[0])
        drop = 1.0 if mask is None else mask[n, 0]
        h, c = [[0 * h0 for _ in text] for _ in range(2)]
        for _ in range(layers):
            new_h, new_c = [], []
            for t in range(len(text)):
                x_before, h_before, c_before = (text[t - 1], h[t - 1], c[t - 1]) if t else (x0, h0, c0)
                pre = (
                    cell.input.weight @ torch.cat([x_before, text[t]])
                    + cell.input.bias
                    + cell.hidden.weight @ torch.cat([drop * h_before, drop * h[t]])
                )
                i, f, g, o = pre[:d], pre[d : 2 * d], pre[2 * d : 3 * d], pre[3 * d :]
                new_c.append(f.sigmoid() * c_before + i.sigmoid() * g.tanh())
                new_h.append(o.sigmoid() * new_c[-1].tanh())
            h, c = new_h, new_c
        states.append((torch.stack(h), torch.stack(c)))
    return tuple(torch.stack(part) for part in zip(*states, strict=True))


def assert_equal(found, expected, atol):
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_the_layer_is_its_formula(layers):
    layer, x = make(TrellisLayer, dropout=0.4), inputs()
    context = layer.inject(x)
    state = layer.initial_state(context)
    for _ in range(layers):
        state = layer(state, context)
    assert_equal(state, by_hand(layer, x, layers, mask=context.mask), 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_equilibrium_is_a_layer_of_very_great_depth(kind):
    cell, x = make(kind), inputs()
    layer = Equilibrium(cell, **EXACT)
    expected = by_hand(cell, x, 80)
    assert_equal(expected, by_hand(cell, x, 60), 1e-12)  # which is settled
    assert_equal(layer(x), expected, 1e-11)
    past = cell.inject(x).h[:, 0] + 0.3, cell.inject(x).c[:, 0] - 2.0, inputs(3, 1)[:, 0]
    segment = Segment(x, dataclasses.replace(cell.remember(layer(x), cell.inject(x)), h=past[0], c=past[1], x=past[2]))
    assert_equal(layer(segment), by_hand(cell, x, 80, past), 1e-11)


def as_lstm(kind, lstm):
    """The layer whose equilibrium is an LSTM of so many layers: W1 reads its own h before, W2 what is below at once."""
    d, n, width = lstm.hidden_size, lstm.num_layers, lstm.input_size
    layer = kind(width, n * d, weight_norm=False).double()
    layer.norm = nn.Identity()
    with torch.no_grad():
        layer.input.weight.zero_()
        layer.hidden.weight.zero_()
        for level in range(n):
            own, below = level * d, n * d + (level - 1) * d
            for gate in range(4):
                rows, part = slice(gate * n * d + own, gate * n * d + own + d), slice(gate * d, gate * d + d)
                ih, hh, b_ih, b_hh = (weight[part] for weight in lstm.all_weights[level])
                layer.hidden.weight[rows, own : own + d] = hh
                if level:
                    layer.hidden.weight[rows, below : below + d] = ih
                else:
                    layer.input.weight[rows, width:] = ih
                layer.input.bias[rows] = b_ih + b_hh
    return layer


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_an_lstm_is_a_special_case(kind, levels):
    """Theorem 1 of the paper, at infinite depth, where no history is cut off."""
    lstm = nn.LSTM(3, 4, levels, batch_first=True).double()
    cell, x = as_lstm(kind, lstm), inputs(2, 9, 3)
    before = torch.randn(2, levels, 2, 4, dtype=torch.float64)
    expected, last = lstm(x, (before[0], before[1]))
    layer = Equilibrium(cell, **EXACT)
    start = layer.solve(x[:, :1])
    past = cell.remember(start.state, start.context)
    flat = [part.transpose(0, 1).flatten(1) for part in before]
    solution = layer.solve(Segment(x, dataclasses.replace(past, h=flat[0], c=flat[1])))
    assert torch.allclose(solution.state[0][..., -4:], expected, atol=1e-11)
    found = cell.remember(solution.state, solution.context)
    for part, end in zip((found.h, found.c), last, strict=True):
        assert torch.allclose(part, end.transpose(0, 1).flatten(1), atol=1e-11)


def test_so_many_layers_are_an_lstm_with_so_long_a_memory():
    """Theorem 1 as it stands, for one layer."""
    lstm = nn.LSTM(3, 4, batch_first=True).double()
    layer, x = as_lstm(TrellisLayer, lstm), inputs(2, 9, 3)
    context = layer.inject(x)
    state = layer.initial_state(context)
    for depth in range(1, 9):
        state = layer(state, context)
        recent = lstm(x[:, 9 - depth :])[0]
        assert torch.allclose(state[0][:, -1], recent[:, -1], atol=1e-12)
    assert not torch.allclose(state[0][:, -1], lstm(x)[0][:, -1], atol=1e-6)


@pytest.mark.parametrize("weight_norm", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_unrolling(kind, weight_norm):
    cell, x = make(kind, dropout=0.3, weight_norm=weight_norm), inputs().requires_grad_()
    layer = Equilibrium(cell, **EXACT)
    solution = layer.solve(x)
    source = torch.Generator().manual_seed(2)
    draw = lambda part: torch.randn(part.shape, generator=source, dtype=part.dtype)  # noqa: E731
    direction = tuple(map(draw, solution.state))
    wanted = [x, *cell.parameters()]
    found = torch.autograd.grad(sum((a * b).sum() for a, b in zip(solution.state, direction, strict=True)), wanted)
    context = dataclasses.replace(cell.inject(x), mask=solution.context.mask)
    state = cell.initial_state(context)
    for _ in range(200):
        state = cell(state, context)
    expected = torch.autograd.grad(sum((a * b).sum() for a, b in zip(state, direction, strict=True)), wanted)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() <= 1e-8 * (1 + b.norm())


@pytest.mark.parametrize("options", [{"rtol": None, "max_steps": 6}, {"rtol": 1e-1}, {"rtol": 1e-3}, {"rtol": 1e-5}])
@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("kind", KINDS)
def test_changing_later_tokens_changes_no_earlier_bit(kind, name, options):
    cell, x = make(kind, d_hidden=12, dtype=torch.float32), inputs(3, 12, dtype=torch.float32)
    layer = Equilibrium(cell, dataclasses.replace(SOLVERS[name], **options), on_failure="ignore")
    with torch.no_grad():
        before = layer(x)
        for position in (1, 5, 11):
            changed = x.clone()
            changed[:, position:] = 5 * inputs(3, 12 - position, seed=position, dtype=torch.float32)
            for a, b in zip(layer(changed), before, strict=True):
                assert torch.equal(a[:, :position], b[:, :position])
                assert not torch.equal(a[:, position:], b[:, position:])


def test_the_sample_scope_would_leak():
    cell, x = make(d_hidden=12), inputs()
    changed = x.clone()
    changed[:, -1] += 1
    states = [Equilibrium(cell, Anderson(rtol=None, max_steps=8))(value)[0] for value in (x, changed)]
    assert not torch.equal(states[0][:, :-1], states[1][:, :-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6)
@given(cut=st.integers(1, 11))
def test_segment_by_segment_is_the_whole_text(kind, dtype, cut):
    cell, x = make(kind, dtype=dtype), inputs(3, 12, dtype=dtype)
    layer = Equilibrium(cell, Anderson(scope="prefix", rtol=1e-6))
    whole = layer(x)
    first = layer.solve(x[:, :cut])
    past = cell.remember(first.state, first.context)
    assert not any(part.requires_grad for _, part in tree_leaves(past))
    second = layer(Segment(x[:, cut:], past))
    for a, b, c in zip(first.state, second, whole, strict=True):
        assert (torch.cat([a, b], dim=1) - c).norm() <= 1e-5 * c.norm()
    plain = layer(x[:, cut:])
    assert (plain[0] - whole[0][:, cut:]).norm() > 1e-3  # what is remembered matters


def test_padded_samples_remember_their_own_last_position():
    cell, x = make(), inputs(4, 6)
    layer = Equilibrium(cell, **EXACT)
    lengths = torch.tensor([6, 3, 1, 0])
    old = layer.solve(inputs(4, 2, seed=5))
    earlier = cell.remember(old.state, old.context)
    solution = layer.solve(Segment(x, earlier))
    padded = cell.remember(solution.state, solution.context, lengths)
    for row, length in enumerate(lengths.tolist()):
        before = select_rows(earlier, torch.tensor([row]))
        if length:
            alone = layer.solve(Segment(x[row : row + 1, :length], before))
            before = cell.remember(alone.state, alone.context)
        for (_, a), (_, b) in zip(tree_leaves(padded), tree_leaves(before), strict=True):
            assert torch.allclose(a[row], b[0], rtol=0, atol=1e-11)
    everything = cell.remember(solution.state, solution.context)
    for (_, a), (_, b) in zip(tree_leaves(padded), tree_leaves(everything), strict=True):
        assert torch.equal(a[0], b[0])
    with pytest.raises(ValueError, match=r"lengths has shape \(3,\); pass one of \(4,\)"):
        cell.remember(solution.state, solution.context, lengths[:3])
    with pytest.raises(ValueError, match="the past holds 4 samples, but the segment 2; pass what"):
        layer(Segment(x[:2], earlier))


def test_dropout_is_one_mask_a_sample_for_all_positions():
    cell = make(d_hidden=16, dropout=0.5)
    layer = Equilibrium(cell, Anderson(scope="prefix", rtol=1e-9))
    x = inputs(6, 5) * torch.linspace(0.2, 3, 6).double().reshape(6, 1, 1)
    solution = layer.solve(x)
    mask = solution.context.mask
    assert solution.ok and mask.shape == (6, 1, 16) and mask.unique().tolist() == [0.0, 2.0]
    assert len({tuple(row.flatten().tolist()) for row in mask}) == 6
    assert_equal(solution.state, by_hand(cell, x, 60, mask=mask), 1e-6)
    assert not torch.equal(layer(x)[0], solution.state[0])
    layer.eval()
    assert layer.solve(x).context.mask is None and torch.equal(layer(x)[0], layer(x)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_weights_contract(kind):
    cell = kind(32, 64)
    solution = Equilibrium(cell, Picard(scope="prefix", rtol=1e-3)).solve(inputs(4, 48, 32, dtype=torch.float32))
    assert solution.ok and solution.evaluations <= (8 if kind is TrellisCell else 20)
    x = inputs(2, 1, 32, dtype=torch.float32)  # one position: what is left of the Jacobian on its diagonal
    one = Equilibrium(cell, Picard(scope="prefix", rtol=1e-6)).solve(x)
    assert spectral_radius(cell, one.state, one.context).radius.max() < 0.2


def test_evaluations_do_not_grow_with_the_text_where_gates_stay_open():
    counts = {}
    for kind in KINDS:
        cell = make(kind, d_hidden=16, gain=2.0)
        with torch.no_grad():
            cell.input.bias[16:32] = 5.0  # forget nothing
        for length in (16, 64):
            solution = Equilibrium(cell, Anderson(scope="prefix", rtol=1e-3)).solve(inputs(2, length))
            assert solution.ok
            counts[kind, length] = solution.evaluations
    assert counts[TrellisCell, 64] <= counts[TrellisCell, 16] + 6 <= 20
    assert counts[TrellisLayer, 64] >= 50


def test_is_called_healthy():
    cell = make(d_hidden=8, gain=1.0, dtype=torch.float32, dropout=0.2)
    layer = Equilibrium(cell, Anderson(scope="prefix", max_steps=300))
    assert diagnose(layer, inputs(4, 5, dtype=torch.float32)).healthy


@pytest.mark.parametrize("kind", KINDS)
def test_under_autocast(kind):
    cell, x = make(kind, gain=1.0, dtype=torch.float32), inputs(dtype=torch.float32)
    layer = Equilibrium(cell, Anderson(scope="prefix", rtol=1e-2), Implicit(GMRES(rtol=1e-2)))
    expected = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(x)
    assert_equal(found, expected, 5e-2)
    sum(part.sum() for part in found).backward()
    assert all(weight.grad.isfinite().all() for weight in cell.parameters())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [({"dropout": 1.0}, ValueError, "dropout=1.0 is no probability"), ({"dropout": "0.1"}, TypeError, "dropout='0.1'"),
     ({"d_hidden": 0}, ValueError, r"TrellisCell\(d_hidden=0\) has no features; pass"),
     ({"d_model": 2.5}, TypeError, r"TrellisCell\(d_model=2.5\)")],
)  # fmt: skip
def test_wrong_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        TrellisCell(**{"d_model": 4, "d_hidden": 8, **options})
