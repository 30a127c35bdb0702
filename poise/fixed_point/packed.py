"""A cell seen through the layout: one matrix in, one matrix out, every call counted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from poise.fixed_point.state import Layout
from poise.fixed_point.tree import opaque_leaf, select_rows, tree_leaves


@dataclass
class Count:
    """Calls of a cell and the rows in them."""

    evaluations: int = 0
    rows: int = 0


DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Casts:
    """The autocast state of the caller, for evaluations made in a backward or beside sums that stay wide."""

    dtypes: tuple[tuple[str, torch.dtype], ...]  # of each device whose autocast is enabled

    @staticmethod
    def now() -> Casts:
        """Return the state at this moment."""
        enabled = [device for device in DEVICES if torch.is_autocast_enabled(device)]
        return Casts(tuple((device, torch.get_autocast_dtype(device)) for device in enabled))

    def hold(self) -> bool:
        """Whether nothing has to be restored."""
        return not self.dtypes and not any(map(torch.is_autocast_enabled, DEVICES))

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Compute as at that moment."""
        with ExitStack() as stack:
            dtypes = dict(self.dtypes)
            for device in DEVICES:
                if device in dtypes or torch.is_autocast_enabled(device):
                    enabled = device in dtypes
                    stack.enter_context(torch.autocast(device, dtypes.get(device), enabled=enabled))
            yield


@dataclass(frozen=True)
class PackedCell:
    """f(z, context) on packed states (batch, groups, features)."""

    f: Callable[..., Any]
    layout: Layout
    context: Any
    selectable: bool  # whether all that belongs to a sample is declared, so that rows can be left out
    count: Count = field(default_factory=Count)
    dtypes: list[torch.dtype] = field(default_factory=list)  # of the cell's own output, known after the first call
    takes_context: bool = True
    casts: Casts = field(default_factory=Casts.now)

    def __call__(self, z: Tensor) -> Tensor:
        """Evaluate the cell once on all rows of `z`."""
        self.count.evaluations += 1
        self.count.rows += z.shape[0]
        version = 0 if z.is_inference() else z._version
        out = self.evaluate(self.layout.unpack(z))
        if not z.is_inference() and z._version != version:
            raise ValueError(
                "the cell wrote into the state that it was given, which the solver still needs; compute a new one."
            )
        return self.layout.pack(out)

    def evaluate(self, state: Any) -> Any:
        """Evaluate the cell on an unpacked state and check what it returned."""
        if self.casts.hold():
            out = self.f(state, self.context) if self.takes_context else self.f(state)
        else:
            with self.casts.restored():
                out = self.f(state, self.context) if self.takes_context else self.f(state)
        # What it returns is looked at closely unless it is plainly right.
        plain = self.dtypes and type(out) is type(state) is Tensor
        if not (plain and out.shape == state.shape and out.dtype == self.dtypes[0]):
            self._check(out, state)
        return out

    def select(self, index: Tensor) -> PackedCell:
        """Return the cell on the rows `index`; its calls count with this one's."""
        return replace(self, context=select_rows(self.context, index))

    def _check(self, out: Any, state: Any) -> None:
        returned = out if isinstance(out, tuple) else (out,)
        expected = state if isinstance(state, tuple) else (state,)
        if isinstance(out, tuple) != isinstance(state, tuple) or len(returned) != len(expected):
            raise TypeError(
                f"the cell returned {_name(out)} for a state that is {_name(state)}; return the state's own structure."
            )
        for new, old in zip(returned, expected, strict=True):
            if not isinstance(new, Tensor):
                raise TypeError(f"the cell returned {_name(new)} where the state is a tensor; return a tensor.")
            if new.shape != old.shape:
                raise ValueError(
                    f"the cell returned shape {tuple(new.shape)} for a state of shape {tuple(old.shape)}; "
                    "return the state's shape, or start from a z0 of the cell's shape."
                )
            # Under autocast a cell may answer in lower precision than the state's; the solver's numbers stay wide.
            lower = bool(self.casts.dtypes) and new.dtype in (torch.float16, torch.bfloat16)
            if new.dtype != old.dtype and not (lower and old.dtype == torch.float32):
                raise TypeError(
                    f"the cell returned {new.dtype} for a state of {old.dtype}; cast in the cell or start from a z0 "
                    f"of {new.dtype}."
                )
        self.dtypes[:] = [new.dtype for new in returned]

    @property
    def epsilon(self) -> float:
        """The relative spacing of the numbers in which the cell computes."""
        kinds = [torch.finfo(dtype).eps for dtype in self.dtypes or self.layout.dtypes]
        kinds += [torch.finfo(dtype).eps for _, dtype in self.casts.dtypes]
        return max(kinds)


def asks_for_context(f: Callable[..., Any]) -> bool:
    """Whether `f` asks for two positional arguments: without a context such a cell is called as f(z, None)."""
    target = f.forward if isinstance(f, torch.nn.Module) else f
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    required = [
        p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return len(required) >= 2


def check_context(context: Any, batch: int, start: str = "the state") -> None:
    """Refuse a context of which a tensor does not have the batch size of `start` in its leading dimension."""
    opaque = opaque_leaf(context, "context")
    if opaque is not None:
        raise TypeError(
            f"{opaque}, whose rows cannot be selected; pass tensors in tuples, lists, dicts or dataclasses."
        )
    for path, leaf in tree_leaves(context):
        if leaf.dim() == 0 or leaf.shape[0] != batch:
            raise ValueError(
                f"context{path} has shape {tuple(leaf.shape)} but {start} holds {batch} samples; start from as many as "
                "the context holds, one row each, and let the cell close over what all samples share."
            )


def _name(value: Any) -> str:
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else f"a {type(value).__name__}"
