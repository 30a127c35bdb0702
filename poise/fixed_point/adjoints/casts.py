"""The autocast state of a forward, for the evaluations that its backward makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Casts:
    """Whether and to what each kind of device casts."""

    states: tuple[tuple[str, bool, torch.dtype], ...]

    @staticmethod
    def now() -> Casts:
        """Return the present state."""
        devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
        return Casts(tuple((d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in devices))

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Compute as at that time."""
        with ExitStack() as stack:
            for device, enabled, dtype in self.states:
                stack.enter_context(torch.autocast(device, enabled=enabled, dtype=dtype))
            yield
