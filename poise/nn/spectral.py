"""The spectral radius of a cell's Jacobian, per sample, by Arnoldi's method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from poise.fixed_point.linear.gmres import orthogonalised
from poise.fixed_point.options import check_kind
from poise.nn.jacobian import Linearisation, linearise

# Eigenvalues of the small matrices are looked at once in so many products: each look costs as much as several.
BETWEEN_LOOKS = 4
# A new direction shorter than this many units of rounding of the image is rounding: the space is invariant.
BREAKDOWN = 10.0


@dataclass(frozen=True, repr=False)
class SpectralRadius:
    """The largest |eigenvalue| of each sample's Jacobian, and how far it can be believed.

    `radius`: (batch,), NaN where the Jacobian is not finite. `residual`: (batch,), |J^T v - theta v| / |theta| of the
    eigenpair behind it (|v| = 1): theta is an exact eigenvalue of a matrix that differs from J by so much. `products`:
    vector-Jacobian products made.
    """

    radius: Tensor
    residual: Tensor
    products: int
    rtol: float

    @property
    def converged(self) -> Tensor:
        """(batch,) bool: whether the residual is within `rtol`."""
        return self.residual <= self.rtol

    def __repr__(self) -> str:
        if not len(self.radius):
            return "SpectralRadius of an empty batch"
        resolved = int(self.converged.sum())
        return (
            f"SpectralRadius: largest {self.radius.max().item():.3g}, mean {self.radius.mean().item():.3g}, "
            f"{resolved} of {len(self.radius)} resolved to {self.rtol:g} in {self.products} products"
        )


def spectral_radius(
    cell: Callable[..., Any],
    state: Any,
    context: Any = None,
    *,
    steps: int = 40,
    rtol: float = 1e-2,
    valid: Any = None,
    generator: torch.Generator | None = None,
) -> SpectralRadius:
    """Return the spectral radius of the cell's Jacobian at the state, one number a sample.

    Below 1 plain iteration converges near the state, at that rate. Arnoldi's method on vector-Jacobian products (J and
    J^T have one spectrum) with full orthogonalisation, so that complex pairs are right, which a power iteration with a
    Rayleigh quotient gets wrong. Stops when every sample's eigenpair has a residual of at most `rtol`, and after
    `steps` products at the latest, each of which keeps one vector like the state.

    Where the steps do not suffice, the radius of a normal Jacobian comes out too low. That of a non-normal one may come
    out on either side: the values are those of the Jacobian on a subspace, bounded by its numerical radius, and the
    residual says by how small a change of J they would be exact. The cell must keep its samples apart. No graph is
    kept, and the state and the context are left as they are.

    `state`: a tensor (batch, ...) or a tuple of them. `valid`: a mask as in `fixed_point`. `generator`: the source of
    the first vector, on the state's device (default: PyTorch's own).

    Saad (2011), "Numerical Methods for Large Eigenvalue Problems", algorithm 6.2 and proposition 6.8.

    >>> spectral_radius(layer.cell, solution.state, solution.context).radius.max()
    """
    check_kind("spectral_radius", "steps", steps, "int")
    check_kind("spectral_radius", "rtol", rtol, "float")
    if steps < 1 or not rtol >= 0:
        raise ValueError(f"spectral_radius(steps={steps}, rtol={rtol}) cannot run; pass at least 1 and at least 0.")
    at = linearise(cell, state, context, valid, attached=False)
    with torch.no_grad():
        return _Arnoldi(at, generator).run(min(steps, at.z.shape[2]), rtol)


class _Arnoldi:
    """An orthonormal Krylov basis and its Hessenberg matrix, for every sample."""

    def __init__(self, at: Linearisation, generator: torch.Generator | None) -> None:
        self.at = at
        start = torch.randn(at.z.shape, generator=generator, dtype=at.z.dtype, device=at.z.device)
        if at.valid is not None:
            start = start * at.valid
        start = start.flatten(1)
        self.vectors = [normalised(start, torch.linalg.vector_norm(start, dim=1))]
        self.hessenberg = start.new_zeros(len(start), 1, 0, dtype=torch.float64)
        self.finite = torch.ones(len(start), dtype=torch.bool, device=start.device)

    def run(self, steps: int, rtol: float) -> SpectralRadius:
        """Extend the basis until the eigenpairs are resolved."""
        products = 0
        radius = self.hessenberg.new_zeros(len(self.finite))
        residual = torch.zeros_like(radius)
        while products < steps and len(radius):
            self._extend()
            products += 1
            if products % BETWEEN_LOOKS == 0 or products == steps:
                radius, residual = self._look()
                if bool((residual <= rtol).all()):
                    break
        dtype = self.at.z.dtype
        radius = radius.masked_fill(~self.finite, float("nan")).to(dtype)
        return SpectralRadius(radius, residual.masked_fill(~self.finite, float("nan")).to(dtype), products, rtol)

    def _extend(self) -> None:
        """Add the image of the last vector."""
        basis = torch.stack(self.vectors, dim=1)
        image = self.at.product(self.vectors[-1].view_as(self.at.z)).flatten(1)
        self.finite = self.finite & image.isfinite().all(dim=1)
        image = torch.where(self.finite.unsqueeze(1), image, 0.0)
        size = torch.linalg.vector_norm(image, dim=1)
        column = self.hessenberg.new_zeros(len(image), len(self.vectors))
        for _ in range(2):  # once does not stay orthogonal in float32 (Giraud, Langou and Rozloznik 2005)
            inner, image = orthogonalised(basis, image)
            column += inner
        height = torch.linalg.vector_norm(image, dim=1)
        height = torch.where(height > BREAKDOWN * torch.finfo(height.dtype).eps * size, height, 0.0)
        self.vectors.append(normalised(image, height))
        batch, rows, columns = self.hessenberg.shape
        grown = self.hessenberg.new_zeros(batch, rows + 1, columns + 1)
        grown[:, :rows, :columns] = self.hessenberg
        grown[:, :rows, columns] = column
        grown[:, rows, columns] = height
        self.hessenberg = grown

    def _look(self) -> tuple[Tensor, Tensor]:
        """Return the largest |Ritz value| of each sample and the relative residual of its pair."""
        square, below = self.hessenberg[:, :-1], self.hessenberg[:, -1, -1]
        # On the CPU: the matrices are small, and the host needs the answer.
        values, vectors = torch.linalg.eig(square.cpu())
        radius, which = values.abs().max(dim=1)
        last = vectors[:, -1].gather(1, which.unsqueeze(1)).squeeze(1).abs()
        miss = below.cpu() * last
        relative = torch.where(miss > 0, miss / radius, 0.0)
        return radius.to(below.device), relative.to(below.device)


def normalised(vector: Tensor, norm: Tensor) -> Tensor:
    """Return vector / norm, and zero where the norm is zero."""
    return torch.where(norm > 0, 1 / norm, 0.0).unsqueeze(1) * vector
