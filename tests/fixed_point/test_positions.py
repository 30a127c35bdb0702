"""The residual by position: the largest relative change over positions, so that large instances stop as small ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import poise
from poise import Anderson, Broyden, Picard
from poise.fixed_point.state import Layout

RULES = {"picard": Picard, "anderson": Anderson, "broyden": Broyden}


def maps(channels: int, seed: int = 0) -> torch.Tensor:
    """A contraction of the channels, of norm 0.7."""
    weight = torch.randn(channels, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 0.7 * weight / torch.linalg.matrix_norm(weight, 2)


@pytest.mark.parametrize("dims", [(2, 3), (1, 2), 3, 1])
@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_the_residual_is_the_largest_over_positions(dims, seed):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(3, 4, 5, 2, generator=generator, dtype=torch.float64)
    image = torch.randn(3, 4, 5, 2, generator=generator, dtype=torch.float64)
    solution = poise.fixed_point(
        lambda z, image: image, z, image, solver=Picard(rtol=None, max_steps=1, residual="position"), position_dim=dims
    )
    positions = (dims,) if isinstance(dims, int) else dims
    features = tuple(dim for dim in (1, 2, 3) if dim not in positions)
    norms = [torch.linalg.vector_norm(x, dim=features) for x in (image - z, image)]
    assert torch.allclose(solution.residual, (norms[0] / norms[1]).flatten(1).amax(dim=1))
    assert torch.equal(solution.state, image)


@pytest.mark.parametrize("rule", RULES)
def test_a_position_that_still_moves_is_not_lost_in_a_large_state(rule):
    # One position starts far from its answer; a hundred others start at theirs.
    weight = maps(3)
    x = torch.randn(1, 100, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    answer = torch.linalg.solve(torch.eye(3, dtype=torch.float64) - weight, x.unsqueeze(-1)).squeeze(-1)
    start = answer.clone()
    start[:, 17] += 0.5

    def solve(residual):
        solver = RULES[rule](rtol=1e-3, residual=residual)
        return poise.fixed_point(lambda z, x: z @ weight.T + x, start, x, solver=solver)

    whole, each = solve("sample"), solve("position")
    assert each.ok and each.steps > whole.steps
    error = torch.linalg.vector_norm(each.state - answer, dim=2) / torch.linalg.vector_norm(answer, dim=2)
    assert error.max() < 1e-3 / (1 - 0.7)


@pytest.mark.parametrize("rule", RULES)
def test_copies_of_a_sample_side_by_side_stop_with_it(rule):
    weight = maps(4, seed=2)
    x = torch.randn(1, 4, 6, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def solve(x):
        f = lambda z, x: torch.einsum("ij,bjhw->bihw", weight, z) + x  # noqa: E731
        solver = RULES[rule](rtol=1e-6, residual="position")
        return poise.fixed_point(f, torch.zeros_like(x), x, solver=solver, position_dim=(2, 3))

    one, many = solve(x), solve(x.repeat(1, 1, 1, 9))
    if rule == "picard":  # the others mix by inner products over all positions, which round with their number
        assert torch.equal(one.steps, many.steps)
    assert (one.steps - many.steps).abs() <= 1
    assert torch.allclose(one.state.repeat(1, 1, 1, 9), many.state, rtol=1e-5)


def test_padding_changes_no_residual():
    weight = maps(4, seed=3)
    x = torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    padded = torch.nn.functional.pad(x, (0, 0, 0, 3), value=100.0)
    valid = torch.arange(8).expand(2, 8) < 5

    def solve(x, valid=None):
        solver = Picard(rtol=1e-6, residual="position")
        return poise.fixed_point(
            lambda z, x: torch.tanh(z @ weight.T + x), torch.zeros_like(x), x, solver=solver, valid=valid
        )

    plain, masked = solve(x), solve(padded, valid)
    assert torch.equal(plain.residual, masked.residual) and torch.equal(plain.steps, masked.steps)
    assert torch.equal(plain.state, masked.state[:, :5])


def test_parts_of_a_state_may_have_different_numbers_of_positions():
    parts = (torch.zeros(2, 3, 8, 8), torch.zeros(2, 5, 4, 4))
    images = tuple(torch.ones_like(part) for part in parts)
    images[1][1, :, 2, 3] = 2.0
    solution = poise.fixed_point(
        lambda z, c: tuple(0.5 * part + image for part, image in zip(z, c, strict=True)), parts, images,
        solver=Picard(rtol=1e-4, residual="position"), position_dim=(2, 3),
    )  # fmt: skip
    assert solution.ok
    for part, image in zip(solution.state, images, strict=True):
        assert torch.allclose(part, 2 * image, rtol=1e-3)


def test_gradients_do_not_depend_on_the_residual():
    weight = maps(3).requires_grad_()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    found = []
    for residual in ("sample", "position"):
        f = lambda z, x: torch.tanh(torch.einsum("ij,bjhw->bihw", weight, z) + x)  # noqa: E731
        solver = Anderson(rtol=1e-10, residual=residual)
        adjoint = poise.Implicit(poise.GMRES(rtol=1e-10))
        state = poise.fixed_point(f, torch.zeros_like(x), x, solver=solver, adjoint=adjoint, position_dim=(2, 3)).state
        found.append(torch.autograd.grad(state.square().sum(), weight)[0])
    assert torch.allclose(*found, rtol=1e-8)


def test_positions_come_first_in_a_packed_state():
    state = torch.randn(2, 3, 4, 5)
    layout = Layout.of(state, positions=(2, 3))
    packed = layout.pack(state)
    assert packed.shape == (2, 1, 60) and layout.positions == (20,)
    assert torch.equal(packed.view(2, 4, 5, 3), state.movedim(1, 3))
    assert torch.equal(layout.unpack(packed), state)


@pytest.mark.parametrize(
    ("options", "position_dim", "message"),
    [
        ({"residual": "cell"}, 1, "residual='cell'.*pass 'sample' or 'position'"),
        ({"residual": "position", "scope": "prefix"}, 1, "two residuals.*leave residual out"),
        ({"residual": "position"}, (1, 4), r"residual by position needs positions in dimension \(1, 4\).*position_dim"),
        ({"scope": "prefix"}, (1, 2), r"one dimension of positions, but position_dim is \(1, 2\)"),
    ],
)
def test_what_has_no_meaning_is_refused(options, position_dim, message):
    with pytest.raises(ValueError, match=message):
        poise.fixed_point(lambda z: 0.5 * z, torch.zeros(2, 3, 4), solver=Picard(**options), position_dim=position_dim)


def test_the_backward_has_one_residual_a_sample():
    with pytest.raises(ValueError, match="residual='position'.*residual='sample'"):
        poise.Implicit(solver=Anderson(residual="position"))
