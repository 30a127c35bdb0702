"""What every solver is: its own options beside the loop's, and a rule for the next iterate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from poise.fixed_point.options import check_options
from poise.fixed_point.packed import PackedCell
from poise.fixed_point.tree import where_rows

Scope = Literal["sample", "prefix"]
Residual = Literal["sample", "position"]


@dataclass(frozen=True, kw_only=True)
class Solver(ABC):
    """A rule for the next iterate with the options of the loop that runs it.

    `rtol`: converged when |f(z) - z| <= rtol |f(z)|, Euclidean, the largest over the parts of a tuple state; None is a
    fixed budget of `max_steps` evaluations without a test. `atol`: converged also when |f(z) - z| <= atol.
    `max_steps`: evaluations at most. `check_every`: evaluations from one test to the next; on cheap cells a test costs
    as much as an evaluation, and on a GPU each one waits for the device. `scope`: what one residual and one set of
    mixing weights belongs to, the `sample` or, for causal sequence models, the `prefix` of positions up to each one, so
    that no later position moves an earlier one. `residual`: under the sample scope, that of the whole `sample`, or the
    largest over its `position`s, for problems of different sizes: a few positions that still move are lost in the norm
    of a large state, which would stop early.
    """

    rtol: float | None = 1e-4
    atol: float = 0.0
    max_steps: int = 100
    check_every: int = 1
    scope: Scope = "sample"
    residual: Residual = "sample"

    # Growth of the residual above the best since the last restart that is answered by a restart from the best iterate
    # with an empty memory; infinite for rules that remember nothing.
    restart_growth: ClassVar[float] = float("inf")

    # Whether autograd can record a step, as the adjoint Unrolled needs.
    recordable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_options(self)
        if self.check_every < 1:
            raise ValueError(f"{type(self).__name__}(check_every={self.check_every}) never tests; pass at least 1.")
        if self.scope not in ("sample", "prefix"):
            raise ValueError(f"{type(self).__name__}(scope={self.scope!r}) is unknown; pass 'sample' or 'prefix'.")
        if self.residual not in ("sample", "position"):
            raise ValueError(
                f"{type(self).__name__}(residual={self.residual!r}) is unknown; pass 'sample' or 'position'."
            )
        if self.residual == "position" and self.scope == "prefix":
            raise ValueError(
                f"{type(self).__name__}(scope='prefix', residual='position') asks for two residuals: under the prefix "
                "scope each position has that of its prefix; leave residual out."
            )

    @abstractmethod
    def init(self, z: Tensor) -> Any:
        """Return the memory for iterates like `z`: a tree of tensors with leading dimensions (batch, groups)."""

    def restart(self, memory: Any, mask: Tensor, z: Tensor) -> Any:
        """Return the memory with the groups of the mask (batch, groups) empty, to begin anew from `z`."""
        return where_rows(~mask, memory, self.init(z))

    def spent(self, memory: Any) -> Tensor | None:
        """Return the evaluations that the rule itself has made for each row, (rows,) int64; None if it makes none."""
        return None

    def inverse(self, memory: Any) -> Any:
        """Return what the memory knows of (I - J)^-1, a `SecantInverse`, or None for a rule that learns nothing."""
        return None

    @abstractmethod
    def step(
        self, z: Tensor, fz: Tensor, memory: Any, f: PackedCell, valid: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Return the next iterate and the memory, given the iterate, the cell's output there and a mask of entries."""
