"""The multiscale cell: its formula, its fixed point and gradients, sizes of any kind, and what it costs."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from poise import GMRES, Anderson, Equilibrium, Implicit, Phantom, Picard, Unrolled
from poise.fixed_point.tree import select_rows
from poise.nn import MultiscaleCell, activation_bytes, jacobian_penalty, remove_normalization, spectral_radius
from poise.nn.cells.multiscale import MultiscaleContext
from poise.nn.multiscale import MultiscaleBlock, scale_sizes

EXACT = {"solver": Anderson(rtol=1e-12, max_steps=300), "adjoint": Implicit(GMRES(rtol=1e-12))}


def cell_and_input(channels=(4, 8), size=(7, 6), batch=3, **options):
    torch.manual_seed(0)
    cell = MultiscaleCell(channels, **{"groups": 2, "expansion": 2, **options}).double()
    for name, parameter in cell.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(std=0.1)
    return cell, torch.randn(batch, channels[0], *size, dtype=torch.float64).relu()


def random_state(cell, x):
    return tuple(torch.randn_like(part) for part in cell.initial_state(cell.inject(x)))


def as_written(cell, z, context):
    """The formula of the paper, one term after another, with plain functions."""
    norm = lambda h, layer: F.group_norm(h, layer.num_groups, layer.weight, layer.bias)  # noqa: E731
    refined = []
    for i, block in enumerate(cell.block.residuals):
        h = norm(F.conv2d(z[i], block.widen.weight, padding=1), block.norm_inside).relu()
        h = F.conv2d(h, block.narrow.weight, padding=1) * (context.masks[i] if context.masks else 1.0)
        h = norm(h + context.injection if i == 0 else h, block.norm_residual)
        refined.append(norm((h + z[i]).relu(), block.norm_out))
    out = []
    for to, merge in enumerate(cell.block.merges):
        total = refined[to]
        for of, chain in enumerate(merge.downs):
            h = refined[of]
            for place in range(0, len(chain), 3):  # convolution, norm, ReLU
                h = norm(F.conv2d(h.relu() if place else h, chain[place].weight, stride=2, padding=1), chain[place + 1])
            assert len(chain) == 3 * (to - of) - 1
            total = total + h
        for up, (conv, gn) in enumerate(merge.ups):
            times = 2 ** (up + 1)
            h = norm(F.conv2d(refined[to + up + 1], conv.weight), gn)
            h = h.repeat_interleave(times, 2).repeat_interleave(times, 3)
            total = total + h[:, :, : total.shape[2], : total.shape[3]]
        out.append(norm(F.conv2d(total.relu(), merge.mixer.weight), merge.norm))
    return tuple(out)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 9)])
def test_the_cell_is_its_formula(size):
    cell, x = cell_and_input((4, 6, 8), size, dropout=0.3)
    assert [part.num_groups for part in (cell.block.residuals[0].norm_out, cell.block.merges[0].norm)] == [2, 1]
    context, z = cell.inject(x), random_state(cell, x)
    assert len(context.masks) == 3
    for found, expected in zip(cell(z, context), as_written(cell, z, context), strict=True):
        assert torch.allclose(found, expected, atol=1e-12)


@given(
    size=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    channels=st.lists(st.sampled_from([2, 4, 6]), min_size=1, max_size=4),
)
def test_any_size_and_any_number_of_scales(size, channels):
    cell, x = cell_and_input(tuple(channels), size)
    z = random_state(cell, x)
    height, width = size
    for part, of, image in zip(z, channels, cell(z, cell.inject(x)), strict=True):
        assert image.shape == part.shape == (3, of, height, width) and image.isfinite().all()
        height, width = (height + 1) // 2, (width + 1) // 2


def test_one_channel_makes_one_group():
    cell, x = cell_and_input((1, 1), (5, 5), groups=1)
    assert [tuple(part.shape) for part in Equilibrium(cell, **EXACT)(x)] == [(3, 1, 5, 5), (3, 1, 3, 3)]


@pytest.mark.parametrize("channels", [(4,), (4, 8), (4, 4, 8)])
def test_gradients_are_those_of_a_long_unroll(channels):
    cell, x = cell_and_input(channels)
    x.requires_grad_()
    wanted = [x, *cell.parameters()]
    state = Equilibrium(cell, **EXACT)(x)
    context = cell.inject(x)
    z = cell.initial_state(context)
    for _ in range(150):
        z = cell(z, context)
    weights = [torch.randn_like(part) for part in z]

    def gradients(state):
        total = sum((part * weight).sum() for part, weight in zip(state, weights, strict=True))
        return torch.autograd.grad(total, wanted)

    for found, expected in zip(state, z, strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-9)
    for found, expected in zip(gradients(state), gradients(z), strict=True):
        assert torch.allclose(found, expected, rtol=1e-8, atol=1e-8)


def test_a_sample_does_not_depend_on_its_neighbours():
    cell, x = cell_and_input(batch=6)
    x = x * torch.linspace(0.1, 5, 6).double().view(-1, 1, 1, 1)
    layer = Equilibrium(cell, Anderson(rtol=1e-6))
    together = layer.solve(x)
    assert together.rows < 6 * together.evaluations  # some finished before others
    for i in (0, 3, 5):
        alone = layer.solve(x[i : i + 1])
        assert alone.steps.item() == together.steps[i].item()
        for one, all_ in zip(alone.state, together.state, strict=True):
            assert torch.allclose(one[0], all_[i], rtol=0, atol=1e-12)


def test_channels_last_is_kept_through_a_solve_and_changes_no_number():
    cell, x = cell_and_input((4, 8), (8, 6))
    layer = Equilibrium(cell, **EXACT)
    expected = layer(x)
    seen = []
    cell.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0]))
    layer.to(memory_format=torch.channels_last)
    found = layer(x.to(memory_format=torch.channels_last))
    for one, two in zip(found, expected, strict=True):
        assert torch.allclose(one, two, rtol=0, atol=1e-10)
    assert len(seen) > 10
    for part in (*seen, *found):  # each sample: rows of the solver's matrix lie further apart
        assert part[:1].is_contiguous(memory_format=torch.channels_last) and not part[:1].is_contiguous()


def test_masks_are_drawn_once_a_solve_and_not_in_evaluation():
    cell, x = cell_and_input(dropout=0.4)
    layer = Equilibrium(cell, Anderson(rtol=1e-9, max_steps=100))
    solution = layer.solve(x)
    for i in range(len(x)):
        context = select_rows(solution.context, torch.tensor([i]))
        state = tuple(part[i : i + 1] for part in solution.state)
        for before, after in zip(state, cell(state, context), strict=True):
            assert torch.allclose(before, after, atol=1e-7)
    for mask, part in zip(solution.context.masks, solution.state, strict=True):
        assert mask.shape == part.shape and mask.unique().tolist() == [0.0, pytest.approx(1 / 0.6)]
    assert cell.eval().inject(x).masks == () == cell_and_input()[0].inject(x).masks


def test_weights_are_normalised_and_computed_once_a_solve():
    cell, x = cell_and_input()
    parametrized = {name.rpartition(".parametrizations")[0] for name, _ in cell.named_parameters()} - {""}
    assert parametrized == {
        *(f"block.residuals.{i}.{name}" for i in range(2) for name in ("widen", "narrow")),
        *(f"block.merges.{i}.mixer" for i in range(2)),
    }
    calls = []
    cell.block.residuals[0].widen.parametrizations["weight"][0].register_forward_hook(lambda *_: calls.append(1))
    layer = Equilibrium(cell, **EXACT)
    solution = layer.solve(x)
    sum(part.sum() for part in solution.state).backward()
    assert solution.evaluations > 5 and len(calls) == 1
    plain = remove_normalization(copy.deepcopy(cell))
    for one, two in zip(Equilibrium(plain, **EXACT)(x), solution.state, strict=True):
        assert torch.allclose(one, two, atol=1e-10)
    assert not any("parametrizations" in name for name, _ in MultiscaleCell((8,), weight_norm=False).named_parameters())


@pytest.mark.parametrize("channels", [(24, 24), (16, 32, 64, 128)])
def test_the_untrained_cell_contracts_and_gains_of_one_do_not(channels):
    torch.manual_seed(0)
    cell, plain = MultiscaleCell(channels, expansion=3), MultiscaleCell(channels, expansion=3)
    plain.block = MultiscaleBlock(channels, expansion=3)
    x = torch.randn(4, channels[0], 16, 16).relu()
    solution = Equilibrium(cell, Anderson(rtol=1e-3)).solve(x)
    assert solution.ok and solution.evaluations <= 20
    assert spectral_radius(cell, solution.state, solution.context).radius.max() < 0.8
    other = Equilibrium(plain, Anderson(rtol=1e-3, max_steps=20), on_failure="ignore").solve(x)
    assert not other.ok and spectral_radius(plain, other.state, other.context).radius.max() > 1


def test_the_block_holds_one_evaluation_at_any_depth():
    torch.manual_seed(0)
    cell = MultiscaleCell((8, 16))
    x = torch.randn(4, 8, 16, 16).relu().requires_grad_()

    def held(adjoint, evaluations):
        layer = Equilibrium(cell, Picard(rtol=None, max_steps=evaluations), adjoint)
        return activation_bytes(lambda: layer(x), exclude=[x, *cell.parameters()])

    unrolled = held(Unrolled(), 12)
    assert held(Implicit(), 6) == held(Implicit(), 24) <= 0.12 * unrolled
    assert held(Phantom(2), 6) == held(Phantom(2), 24) <= 0.2 * unrolled


def test_the_penalty_is_differentiable_in_every_parameter():
    cell, x = cell_and_input(size=(4, 4), batch=2)
    context, z = cell.inject(x), random_state(cell, x)

    def penalty():
        return jacobian_penalty(cell, z, context, generator=torch.Generator().manual_seed(0))

    for parameter in cell.parameters():
        direction = torch.randn_like(parameter)
        (gradient,) = torch.autograd.grad(penalty(), parameter, allow_unused=True)
        slopes = []
        for sign in (1, -1):
            parameter.data.add_(direction, alpha=sign * 1e-6)
            slopes.append(penalty().detach())
            parameter.data.add_(direction, alpha=-sign * 1e-6)
        expected = (slopes[0] - slopes[1]) / 2e-6
        found = 0.0 if gradient is None else (gradient * direction).sum()
        assert found == pytest.approx(expected.item(), rel=1e-4, abs=1e-8)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"channels": (12, 24)}, "channels=12 do not divide into groups=8; pass a multiple"),
        ({"channels": (8, 0)}, "channels=0 do not divide"),
        ({"channels": ()}, r"channels=\(\)\) has no scale; pass the channels of one or more"),
        ({"channels": (8,), "expansion": 0}, r"expansion=0\) leaves no channels; pass at least 1"),
        ({"channels": (8,), "dropout": 1.0}, r"dropout=1.0 is no probability below 1; pass one in \[0, 1\)"),
    ],
)
def test_what_is_no_cell_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        MultiscaleCell(**options)


def test_inputs_of_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"injects \(B, 8, H, W\) into its finest scale, but was given \(2, 3, 4, 4\)"):
        MultiscaleCell((8, 8)).inject(torch.zeros(2, 3, 4, 4))


def test_sizes_are_halves_rounded_up():
    assert scale_sizes((120, 45), 4) == ((120, 45), (60, 23), (30, 12), (15, 6))
    context = MultiscaleContext(torch.zeros(0, 4, 5, 5))
    assert [tuple(part.shape) for part in cell_and_input()[0].initial_state(context)] == [(0, 4, 5, 5), (0, 8, 3, 3)]
