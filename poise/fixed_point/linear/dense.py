"""The Jacobian of every sample, factorised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.fixed_point.linear.base import Product
from poise.fixed_point.live_rows import FLOOR
from poise.fixed_point.loop import Iterate
from poise.fixed_point.options import check_options
from poise.fixed_point.solution import Status, Trace


@dataclass(frozen=True, kw_only=True)
class Dense:
    """Direct solve: J of every sample from one product a feature, then an LU factorisation.

    A reference for small states: it takes (batch, features, features) of memory. `rtol`: converged when the residual
    |b - u + J^T u|, from one product more, is at most rtol |b|; above, it has STALLED at what rounding leaves of a
    direct solve, or is DIVERGED where I - J^T is singular or couples the samples. `max_features`: more are refused.
    """

    rtol: float = 1e-5
    max_features: int = 4096

    def __post_init__(self) -> None:
        check_options(self)
        if self.max_features < 1:
            raise ValueError(f"Dense(max_features={self.max_features}) solves nothing; pass at least 1.")

    def solve(self, product: Callable[[Tensor], Tensor], b: Tensor) -> Iterate:
        """Return the solution of u - J^T u = b, (batch, features), as `fz`.

        Raises ValueError above `max_features`.
        """
        batch, features = b.shape
        if features > self.max_features:
            raise ValueError(
                f"Dense would make {features} x {features} numbers of each of {batch} samples, above "
                f"max_features={self.max_features}; use GMRES(), or raise max_features."
            )
        product = Product.of(product)
        matrix = b.new_empty(batch, features, features)
        unit = torch.zeros_like(b)
        for column in range(features):
            unit[:, column] = 1
            matrix[:, :, column] = unit - product(unit)
            unit[:, column] = 0
        finite = matrix.isfinite().all(dim=(1, 2)) & b.isfinite().all(dim=1)
        matrix = torch.where(finite.reshape(-1, 1, 1), matrix, torch.eye(features, dtype=b.dtype, device=b.device))
        right = torch.where(finite.unsqueeze(1), b, 0.0)
        u, singular = torch.linalg.solve_ex(matrix, right)
        u = torch.where((singular == 0).unsqueeze(1) & u.isfinite(), u, 0.0)
        residual = torch.linalg.vector_norm(right - u + product(u), dim=1)
        size = torch.linalg.vector_norm(right, dim=1)
        # A backward stable solve leaves the rounding of the matrix times u.
        scale = size + torch.linalg.vector_norm(matrix, dim=(1, 2)) * torch.linalg.vector_norm(u, dim=1)
        floor = FLOOR * torch.finfo(b.dtype).eps * scale
        status = torch.full((batch,), Status.DIVERGED, dtype=torch.int8, device=b.device)
        status = status.masked_fill(residual <= floor, Status.STALLED)
        status = status.masked_fill(residual <= self.rtol * size, Status.CONVERGED)
        status = status.masked_fill(~finite, Status.NONFINITE)
        relative = torch.where(size > 0, residual / size, 0.0)
        return Iterate(
            z=u,
            fz=u,
            status=status,
            steps=torch.full((batch,), features + 1, dtype=torch.int64, device=b.device),
            residual=relative.masked_fill(~finite, float("nan")),
            evaluations=product.count.evaluations,
            rows=product.count.rows,
            rtol=self.rtol,
            trace=Trace(batch, ((None, relative),)),
        )
