"""What does the peer library offer? torchdeq's solvers at every setting that is compared, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from benchmarks.results import torchdeq_version
from poise.fixed_point.state import State


@dataclass(frozen=True)
class Torchdeq:
    """One solver of torchdeq with its options; called on a map it returns (state, its record of the solve)."""

    key: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What settings that cost the same an evaluation share: all but the ridge; "" where there is one only."""
        return f"m={self.options['m']}" if "lam" in self.options else ""

    def __call__(self, f: Callable[[Any], Any], z0: State, budget: int, tol: float = 0.0) -> tuple[State, Any]:
        """Solve z = f(z) from z0; `tol`: of its relative stop test for the worst sample, 0 never stops."""
        from torchdeq.solver import get_solver
        from torchdeq.utils.layer_utils import deq_decorator

        # As its layer does: a tuple is joined to one vector a sample.
        given = f if isinstance(z0, Tensor) else lambda *parts: f(parts)
        joined, start = deq_decorator(given, z0, no_stat=False)
        found, _, record = get_solver(self.key)(
            joined, start, max_iter=budget, tol=tol, stop_mode="rel", **self.options
        )
        state = joined.vec2list(found)
        return (state if isinstance(z0, Tensor) else tuple(state)), record


def torchdeq_solvers() -> dict[str, Torchdeq]:
    """Return torchdeq's solvers by name, Anderson at all settings; nothing where it is not installed."""
    if torchdeq_version() is None:
        return {}
    anderson = {
        f"anderson(m={m}, lam={power(lam)})": Torchdeq("anderson", {"m": m, "lam": lam})
        for m in (6, 10)
        for lam in (1e-4, 1e-6, 1e-8, 0.0)
    }
    return {**anderson, "broyden": Torchdeq("broyden"), "fixed_point_iter": Torchdeq("fixed_point_iter")}


def power(tolerance: float) -> str:
    """Return a tolerance as text, such as 1e-3."""
    return f"{tolerance:.0e}".replace("e-0", "e-") if tolerance else "0"
