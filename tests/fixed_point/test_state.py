"""Packing a state and unpacking it again loses nothing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import poise
from poise import External, NewtonKrylov, Picard, Unrolled
from poise.fixed_point.state import Layout

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128]
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3)


@given(batch=st.integers(0, 3), parts=st.lists(st.tuples(shapes, st.sampled_from(DTYPES)), min_size=1, max_size=3))
def test_unpack_undoes_pack(batch, parts):
    state = tuple(torch.randn(batch, *shape).to(dtype) for shape, dtype in parts)
    layout = Layout.of(state)
    packed = layout.pack(state)
    assert packed.shape[:2] == (batch, 1) and packed.dtype in (torch.float32, torch.float64)
    for before, after in zip(state, layout.unpack(packed), strict=True):
        assert torch.equal(before, after) and before.dtype == after.dtype


@given(batch=st.integers(1, 3), length=st.integers(1, 4), inner=st.integers(1, 3), dim=st.integers(1, 2))
def test_positions_become_groups(batch, length, inner, dim):
    shape = [batch, inner, inner]
    shape[dim] = length
    state = torch.randn(shape)
    layout = Layout.of(state, groups=dim)
    packed = layout.pack(state)
    assert packed.shape == (batch, length, inner)
    for position in range(length):
        assert torch.equal(packed[:, position], state.select(dim, position))
    assert torch.equal(layout.unpack(packed), state)


def test_one_tensor_is_a_view_and_strides_do_not_matter():
    state = torch.randn(2, 3, 4)
    assert Layout.of(state).pack(state).data_ptr() == state.data_ptr()
    turned = state.transpose(1, 2)
    layout = Layout.of(turned)
    assert torch.equal(layout.unpack(layout.pack(turned)), turned)
    wide = poise.fixed_point(lambda z, x: 0.5 * z + x, torch.zeros(2, 4, 3), turned)
    assert torch.allclose(wide.state, 2 * turned, rtol=1e-3)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("spatial", [2, 3])
def test_channels_last_is_kept_and_changes_no_number(count, spatial):
    fmt = {2: torch.channels_last, 3: torch.channels_last_3d}[spatial]
    plain = tuple(torch.randn(3, 4 + i, *range(2, 2 + spatial)) for i in range(count))
    last = tuple(part.to(memory_format=fmt) for part in plain)
    state = last if count > 1 else last[0]
    layout = Layout.of(state)
    packed = layout.pack(state)
    assert (packed.data_ptr() == last[0].data_ptr()) == (count == 1)  # one tensor is a view
    back = layout.unpack(packed)
    for before, after in zip(plain, back if count > 1 else (back,), strict=True):
        assert torch.equal(before, after) and after[0].stride() == before.to(memory_format=fmt)[0].stride()
    assert Layout.of(back).channels_last == layout.channels_last == (True,) * count  # also of views of the matrix
    assert torch.equal(layout.pack(plain if count > 1 else plain[0]), packed)  # a cell may answer in another format
    valid = layout.unpack(layout.pack_mask(tuple(part > 0 for part in plain), 3))
    for part, mask in zip(plain, valid if count > 1 else (valid,), strict=True):
        assert torch.equal(mask, (part > 0).float())


def test_a_mask_covers_pairs_of_a_complex_state():
    state = torch.zeros(2, 3, 2, dtype=torch.complex64)
    valid = torch.tensor([[True, False, True], [True, True, False]])
    packed = Layout.of(state).pack_mask(valid, 2)
    assert packed.shape == (2, 1, 12) and packed.sum() == 4 * valid.sum()


def test_parts_may_have_masks_of_their_own():
    state = torch.zeros(2, 3), torch.zeros(2, 2)
    masks = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)
    assert Layout.of(state).pack_mask(masks, 2).tolist() == [[[1, 1, 1, 0, 0]]] * 2


@pytest.mark.parametrize("solver", [External(lambda g, z: z), NewtonKrylov()])
def test_what_autograd_cannot_follow_is_not_recorded(solver):
    with pytest.raises(ValueError, match=f"cannot record the steps of {type(solver).__name__}; use Implicit"):
        poise.fixed_point(
            lambda z, x: 0.5 * z + x, torch.zeros(1, 2), torch.ones(1, 2), solver=solver, adjoint=Unrolled()
        )


def test_computed_parameters_are_refused():
    weight = torch.eye(2, requires_grad=True) * 0.5
    with pytest.raises(ValueError, match="name the tensors it was made from"):
        poise.fixed_point(lambda z: z @ weight, torch.zeros(1, 2), solver=Picard(), parameters=[weight])
