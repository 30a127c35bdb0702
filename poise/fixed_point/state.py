"""The layout of a state: between what the cell sees and the one matrix that the solvers work on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

State = Tensor | tuple[Tensor, ...]
Positions = int | tuple[int, ...]  # the dimensions of a state that its positions take, the batch being 0


@dataclass(frozen=True)
class Layout:
    """How a state of one or several tensors packs into real numbers of shape (batch, groups, features).

    A group is what one set of mixing weights belongs to: the whole sample (one group), or each position under the
    prefix scope. `positions` are what a residual is the largest over. Packing is a view for a single tensor of at least
    32 bits and one copy otherwise; complex numbers become pairs of reals, and halves are widened to float32. Numbers
    keep the order in which they lie in memory, so that feature maps in channels-last reach the cell as they were.
    """

    shapes: tuple[torch.Size, ...]  # without the batch dimension
    dtypes: tuple[torch.dtype, ...]
    is_tuple: bool
    dtype: torch.dtype  # of the packed numbers
    groups: int
    position_dims: tuple[int, ...]  # which come first in a group; empty where none are told apart
    widths: tuple[int, ...]  # features a group, for each part
    positions: tuple[int, ...]  # of a group that have a residual of their own, for each part
    channels_last: tuple[bool, ...]  # for each part
    plain: bool  # whether packing changes nothing but the shape

    @staticmethod
    def of(state: State, groups: Positions = (), positions: Positions = ()) -> Layout:
        """Read the layout off a state.

        `groups`: the dimension of positions that are groups (prefix scope). `positions`: the dimensions of those within
        one group, the sample. Empty is none.
        """
        parts = state if isinstance(state, tuple) else (state,)
        if not parts or not all(isinstance(part, Tensor) for part in parts):
            found = ", ".join(type(part).__name__ for part in parts) or "an empty tuple"
            raise TypeError(f"a state is a tensor or a non-empty tuple of tensors, but z0 holds {found}; convert it.")
        for part in parts:
            if part.dim() == 0:
                raise ValueError(
                    "a state needs a leading batch dimension, but z0 has shape (); pass z0.reshape(1) for one sample."
                )
            if not (part.is_floating_point() or part.is_complex()):
                raise TypeError(f"a state holds real or complex numbers, but z0 is {part.dtype}; pass z0.float().")
        batches = sorted({part.shape[0] for part in parts})
        if len(batches) > 1:
            raise ValueError(
                f"the parts of a state share one batch size, but z0 has {batches}; make the leading dimensions equal."
            )
        dtype = torch.float32
        for part in parts:
            dtype = torch.promote_types(dtype, part.dtype.to_real() if part.is_complex() else part.dtype)
        dims = _dimensions(groups) or _dimensions(positions)
        if any(not 1 <= dim < part.dim() for part in parts for dim in dims):
            what, instead = ("prefix scope", "scope") if _dimensions(groups) else ("residual by position", "residual")
            raise ValueError(
                f"the {what} needs positions in dimension {dims[0] if len(dims) == 1 else dims} of every part, but z0 "
                f"has shapes {[tuple(part.shape) for part in parts]}; set position_dim or use {instead}='sample'."
            )
        counts = tuple(math.prod(part.shape[dim] for dim in dims) for part in parts)
        group_count = 1
        if _dimensions(groups):
            group_count = _prefixes(dims, counts)
            counts = (1,) * len(parts)
        widths = tuple(math.prod(part.shape[1:]) * (2 if part.is_complex() else 1) // group_count for part in parts)
        channels_last = tuple(not dims and _is_channels_last(part) for part in parts)
        return Layout(
            shapes=tuple(part.shape[1:] for part in parts),
            dtypes=tuple(part.dtype for part in parts),
            is_tuple=isinstance(state, tuple),
            dtype=dtype,
            groups=group_count,
            position_dims=dims,
            widths=widths,
            positions=counts,
            channels_last=channels_last,
            plain=(
                isinstance(state, Tensor)
                and dtype == state.dtype
                and dims == tuple(range(1, len(dims) + 1))
                and not any(channels_last)
            ),
        )

    def pack(self, state: State) -> Tensor:
        """Return the state's numbers as one tensor (batch, groups, features)."""
        if self.plain and isinstance(state, Tensor) and state.dtype == self.dtype:
            return state.reshape(state.shape[0], self.groups, self.widths[0])
        parts = state if isinstance(state, tuple) else (state,)
        packed = [self._pack_part(part, place) for place, part in enumerate(parts)]
        return packed[0] if len(packed) == 1 else torch.cat(packed, dim=2)

    def _pack_part(self, part: Tensor, place: int) -> Tensor:
        if part.is_complex():
            # A view's gradient must lie at even numbers, as it may not where a tuple's parts are joined.
            joined = len(self.shapes) > 1
            part = torch.stack((part.real, part.imag), dim=-1) if joined else torch.view_as_real(part.resolve_conj())
        if self.position_dims:
            part = part.movedim(self.position_dims, self._leading)
        elif self.channels_last[place]:
            part = part.movedim(1, -1)
        return part.reshape(part.shape[0], self.groups, self.widths[place]).to(self.dtype)

    def unpack(self, matrix: Tensor, dtypes: tuple[torch.dtype, ...] | None = None) -> Any:
        """Return the state whose numbers `matrix` (batch, groups, features) holds, in `dtypes` or as it was read."""
        if self.plain and dtypes is None:
            return matrix.reshape(matrix.shape[0], *self.shapes[0])
        pieces = matrix.split(self.widths, dim=2) if len(self.widths) > 1 else (matrix,)
        parts = tuple(
            self._unpack_part(piece, place, dtype)
            for place, (piece, dtype) in enumerate(zip(pieces, dtypes or self.dtypes, strict=True))
        )
        return parts if self.is_tuple else parts[0]

    def _unpack_part(self, piece: Tensor, place: int, dtype: torch.dtype) -> Tensor:
        batch, shape = piece.shape[0], self.shapes[place]
        pair = (2,) if dtype.is_complex else ()
        if self.channels_last[place]:
            part = piece.reshape(batch, *shape[1:], shape[0]).movedim(-1, 1)
        else:
            moved = [shape[dim - 1] for dim in self.position_dims]
            inner = [size for dim, size in enumerate(shape, 1) if dim not in self.position_dims]
            part = piece.reshape(batch, *moved, *inner, *pair).movedim(self._leading, self.position_dims)
        if dtype.is_complex:
            pairs = part.to(dtype.to_real()).contiguous()
            # One row beside an odd number of reals counts as contiguous, but its pairs do not lie at even numbers.
            odd = pairs.storage_offset() % 2 or any(stride % 2 for stride in pairs.stride()[:-1])
            return torch.view_as_complex(pairs.clone(memory_format=torch.contiguous_format) if odd else pairs)
        return part.to(dtype)

    @property
    def _leading(self) -> tuple[int, ...]:
        return tuple(range(1, len(self.position_dims) + 1))

    def pack_mask(self, valid: Any, batch: int) -> Tensor:
        """Return a mask of valid entries, one of (batch, positions, ...) for each part, as numbers 0 and 1 packed."""
        masks = valid if isinstance(valid, tuple) else (valid,) * len(self.shapes)
        if len(masks) != len(self.shapes) or not all(isinstance(mask, Tensor) for mask in masks):
            raise TypeError(
                f"valid is one mask or {len(self.shapes)} of them, tensors of bools, not {valid!r}; pass that."
            )
        packed = []
        for place, (mask, shape, dtype) in enumerate(zip(masks, self.shapes, self.dtypes, strict=True)):
            full = (batch, *shape)
            if mask.dtype != torch.bool or tuple(mask.shape) != full[: mask.dim()]:
                raise ValueError(
                    f"valid is a mask of bools over the state's leading dimensions {full}, but it is {mask.dtype} of "
                    f"shape {tuple(mask.shape)}; pass True where an entry counts."
                )
            if dtype.is_complex:
                full = (*full, 2)
            wide = mask.reshape(mask.shape + (1,) * (len(full) - mask.dim())).expand(full)
            packed.append(self._pack_part(wide.to(self.dtype), place))
        return packed[0] if len(packed) == 1 else torch.cat(packed, dim=2)


def _dimensions(positions: Positions) -> tuple[int, ...]:
    return (positions,) if isinstance(positions, int) else positions


def _prefixes(dims: tuple[int, ...], counts: tuple[int, ...]) -> int:
    """Return how many prefixes a state has, or refuse one that has no order of positions."""
    if len(dims) > 1:
        raise ValueError(f"the prefix scope needs one dimension of positions, but position_dim is {dims}; name one.")
    if len(set(counts)) > 1:
        raise ValueError(
            f"the parts of a state have {sorted(set(counts))} positions; the prefix scope needs one number."
        )
    if counts[0] == 0:
        raise ValueError("the prefix scope needs at least one position, but z0 has none; pass longer states.")
    return counts[0]


def _is_channels_last(part: Tensor) -> bool:
    """Whether each sample of real numbers (batch, channels, ...) lies in memory with its channels innermost."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if part.is_complex() or part.dim() not in formats:
        return False
    sample = part[:1]
    return sample.is_contiguous(memory_format=formats[part.dim()]) and not sample.is_contiguous()
