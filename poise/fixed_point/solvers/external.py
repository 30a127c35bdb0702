"""Any black-box root finder as a solver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from poise.fixed_point.options import require
from poise.fixed_point.packed import PackedCell
from poise.fixed_point.solvers.base import Solver


@dataclass(frozen=True)
class External(Solver):
    """A root finder from elsewhere, called for one sample at a time and differentiated implicitly like any other.

    `find(g, z)` is given the residual g(z) = f(z) - z of one sample, from a vector of n float64 numbers to another (it
    answers in kind: tensors for tensors, NumPy arrays for arrays), and a start; it returns a root. What it returns is
    tested by the loop like every iterate and handed back to it until the tolerance or `max_steps` is reached; it is not
    asked about a sample that has passed or that is not finite. `steps` counts these tests; `evaluations` and `rows`
    count the finder's calls as well. Without a context a sample cannot be evaluated alone, and each call evaluates the
    whole batch.

    >>> from scipy.optimize import root
    >>> solver = External(lambda g, z: root(g, z.numpy(), method="anderson").x)

    A finder that takes finite differences must step far enough for the precision in which the cell computes.
    """

    find: Callable[[Callable[[Any], Any], Tensor], Any]

    recordable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require("find", self.find, Callable, "lambda g, z: scipy.optimize.root(g, z.numpy()).x")

    def init(self, z: Tensor) -> Any:
        """Return no memory."""
        return ()

    def step(
        self, z: Tensor, fz: Tensor, memory: Any, f: PackedCell, valid: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Return the finder's answer for every sample that is neither lost nor within the tolerance."""
        # Imported here: what measures a residual is built on rules.
        from poise.fixed_point.residual import measure, threshold

        # The loop holds samples that have passed where they are. One that it does not hold, since it adds up norms in
        # another precision, takes a plain step and is looked at again.
        open_groups = measure(f, self, fz, fz - z, valid, torch.float64).excess > threshold(self)
        asked = (fz.isfinite().flatten(1).all(dim=1) & open_groups.any(dim=1)).tolist()
        return torch.stack([self._solve(z, row, f) if asked[row] else fz[row] for row in range(len(z))]), memory

    def _solve(self, z: Tensor, row: int, f: PackedCell) -> Tensor:
        index = torch.tensor([row], device=z.device)
        alone = f.select(index) if f.selectable else None

        def residual(vector: Any) -> Any:
            given = torch.as_tensor(vector, dtype=z.dtype, device=z.device).reshape(z.shape[1:])
            if alone is not None:
                out = alone(given.unsqueeze(0))[0]
            else:
                out = f(z.index_copy(0, index, given.unsqueeze(0)))[row]
            answer = (out - given).reshape(-1).double()
            return answer if isinstance(vector, Tensor) else answer.cpu().numpy()

        root = self.find(residual, z[row].reshape(-1).double())
        answer = torch.as_tensor(root, dtype=z.dtype, device=z.device)
        if answer.numel() != z[row].numel():
            raise ValueError(
                f"External's finder returned {answer.numel()} numbers for a state of {z[row].numel()}; "
                "return the root as one vector."
            )
        return answer.reshape(z.shape[1:])
