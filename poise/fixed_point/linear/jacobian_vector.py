"""Products with the Jacobian of a cell, not its transpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from poise.fixed_point.linear.base import Product
from poise.fixed_point.packed import PackedCell
from poise.fixed_point.transforms import in_transform, refuse_inference
from poise.fixed_point.tree import select_rows


@dataclass(eq=False)
class Effort:
    """How the products of a cell are made, found out at the first one, and what evaluations that took besides them."""

    extra: Tensor  # (rows of the whole,) int64
    forward: bool | None = None  # whether by forward mode; None: not tried yet


class JacobianVector(Product):
    """v -> J v on (rows, features), J being the cell's Jacobian at `z` (rows, 1, features).

    By forward mode where every operation of the cell has it; else by two backwards through one graph: J^T u is linear
    in u, so its own vector-Jacobian product is J v. `forward`: whether forward mode is known to work, or not to.
    """

    def __init__(self, f: PackedCell, z: Tensor, valid: Tensor | None = None, forward: bool | None = None) -> None:
        super().__init__()
        refuse_inference("NewtonKrylov")
        self.f, self.z, self.valid = f, z.detach(), valid
        self.selectable = f.selectable
        self.transposed: Callable[[Tensor], Tensor] | None = None
        self.effort = Effort(torch.zeros(len(z), dtype=torch.int64, device=z.device), forward)
        self.places: Tensor | None = None  # where the rows stand in the whole; None for all of it

    def __call__(self, u: Tensor) -> Tensor:
        """Return J v of these rows; the cell counts its own evaluations."""
        v = u.unsqueeze(1)
        if self.effort.forward is None and forward_ad._current_level >= 0:
            self.effort.forward = False
        if self.effort.forward is not False:
            try:
                moved = self._tangent(v).squeeze(1)
                self.effort.forward = True
                return moved
            except (NotImplementedError, RuntimeError):  # an operation without a tangent
                if self.effort.forward:
                    raise
                self.effort.forward = False
                self._count_extra()
        if self.transposed is None:
            self.transposed = self._recorded()
            self._count_extra()
        self.f.count.evaluations += 1
        self.f.count.rows += len(u)
        return self._masked(self.transposed(v)).squeeze(1)

    def select(self, index: Tensor) -> Product:
        """Return the map of the rows `index`."""
        z, valid = select_rows((self.z, self.valid), index)
        part = JacobianVector(self.f.select(index), z, valid)
        part.count, part.effort = self.count, self.effort
        part.places = index if self.places is None else self.places[index]
        return part

    def _count_extra(self) -> None:
        self.effort.extra[slice(None) if self.places is None else self.places] += 1

    def _masked(self, moved: Tensor) -> Tensor:
        return moved if self.valid is None else torch.where(self.valid > 0, moved, 0.0)

    def _tangent(self, v: Tensor) -> Tensor:
        carried = forward_ad._set_fwd_grad_enabled(True)
        with torch.no_grad(), carried, sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
            moved = forward_ad.unpack_dual(self.f(forward_ad.make_dual(self.z, v))).tangent
        return self._masked(torch.zeros_like(v) if moved is None else moved)

    def _recorded(self) -> Callable[[Tensor], Tensor]:
        if in_transform():
            raise RuntimeError(
                "the products of Newton's method cannot be had inside a transform of torch.func; solve with Anderson() "
                "there, or use torch.autograd.forward_ad."
            )
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            start = self.z.requires_grad_()
            image = self.f(start)
            u = torch.zeros_like(image, requires_grad=True)
            if not image.requires_grad:
                return torch.zeros_like
            (pulled,) = torch.autograd.grad(image, start, u, create_graph=True, allow_unused=True)

        def product(v: Tensor) -> Tensor:
            if pulled is None or not pulled.requires_grad:
                return torch.zeros_like(v)
            (moved,) = torch.autograd.grad(pulled, u, v, retain_graph=True, allow_unused=True)
            return torch.zeros_like(v) if moved is None else moved

        return product
