"""Which problems does the bench solve? Cells of known difficulty and two mixed batches, the same at every call.

`python -m benchmarks.cells` prints each one's shape and its samples' spectral radii at the fixed point, where small.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.multiscale import CHANNELS, INPUT_SCALE, SIDES, multiscale
from poise.fixed_point.state import State
from poise.fixed_point.tree import select_rows, tree_map


@dataclass(frozen=True)
class Problem:
    """A fixed point z = f(z, context) to find from z0; all that belongs to a sample is in the context."""

    name: str
    f: Callable[[Any, Any], Any]
    context: Any
    z0: State

    @property
    def batch(self) -> int:
        """The number of samples."""
        return parts(self.z0)[0].shape[0]

    @property
    def state_bytes(self) -> int:
        """The bytes of one state of the whole batch."""
        return sum(part.nbytes for part in parts(self.z0))

    def on(self, device: str) -> Problem:
        """Return the same problem on a device."""
        return tree_map(lambda leaf: leaf.to(device), self)

    def to(self, dtype: torch.dtype) -> Problem:
        """Return the same problem with every number cast: the weights are those of float32, not drawn anew."""
        return tree_map(lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, self)

    def select(self, index: Tensor) -> Problem:
        """Return the samples `index` (int64) as a problem of their own."""
        return Problem(self.name, self.f, select_rows(self.context, index), select_rows(self.z0, index))

    def closed(self) -> Callable[[Any], Any]:
        """Return f with its context closed over: then no solver can leave samples out."""
        return lambda z: self.f(z, self.context)


def parts(state: State) -> tuple[Tensor, ...]:
    """Return the tensors of a state."""
    return state if isinstance(state, tuple) else (state,)


def flat(state: State) -> Tensor:
    """Return a state as one matrix, (batch, n)."""
    return torch.cat([part.flatten(1) for part in parts(state)], dim=1)


@dataclass(frozen=True)
class Dense:
    """tanh(z W^T + x)."""

    weight: Tensor

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ self.weight.T + x)


@dataclass(frozen=True)
class Attention:
    """A post-norm transformer block without mask, biases or affine norms, the input added before its first norm."""

    qkv: Tensor
    out: Tensor
    up: Tensor
    down: Tensor
    heads: int = 4

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        batch, length, width = z.shape
        head = width // self.heads
        q, k, v = (z @ self.qkv.T).view(batch, length, 3, self.heads, head).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(head), dim=-1)
        attended = (weights @ v).transpose(1, 2).reshape(batch, length, width) @ self.out.T
        h = F.layer_norm(z + attended + x, (width,))
        return F.layer_norm(h + torch.relu(h @ self.up.T) @ self.down.T, (width,))


@dataclass(frozen=True)
class Conv:
    """A residual block of two 3 x 3 convolutions with group norms (8 groups, no affine)."""

    first: Tensor
    second: Tensor
    groups: int = 8

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        h = torch.relu(F.group_norm(F.conv2d(z, self.first, padding=1), self.groups))
        h = F.group_norm(F.conv2d(h, self.second, padding=1) + x, self.groups)
        return F.group_norm(torch.relu(h + z), self.groups)


@dataclass(frozen=True)
class MixedContext:
    """A factor and an input for every sample."""

    factor: Tensor  # (batch,)
    x: Tensor  # (batch, n)


@dataclass(frozen=True)
class MixedLinear:
    """c_i z S + x_i: sample i contracts by c_i."""

    symmetric: Tensor

    def __call__(self, z: Tensor, context: MixedContext) -> Tensor:
        return context.factor.unsqueeze(1) * (z @ self.symmetric) + context.x


@dataclass(frozen=True)
class MixedTanh:
    """tanh(c_i z W^T + x_i): sample i has gain c_i."""

    weight: Tensor

    def __call__(self, z: Tensor, context: MixedContext) -> Tensor:
        return torch.tanh(context.factor.unsqueeze(1) * (z @ self.weight.T) + context.x)


def _dense(name: str, n: int, gain: float) -> Problem:
    draw = _draws(0)
    weight = gain * draw(n, n) / math.sqrt(n)
    x = 0.5 * draw(64, n)
    return Problem(name, Dense(weight), x, torch.zeros_like(x))


def dense256() -> Problem:
    """256 tanh units, 64 samples, spectral radius 0.71 to 0.85."""
    return _dense("dense256", 256, 1.0)


def dense1024() -> Problem:
    """As dense256 with 1,024 units: four times the state, sixteen times the work of an evaluation."""
    return _dense("dense1024", 1024, 1.0)


def expansive() -> Problem:
    """dense256 with its weights times 1.5: no contraction, plain iteration wanders for ever."""
    return _dense("expansive", 256, 1.5)


def attention() -> Problem:
    """Width 128, 4 heads, 64 positions, 8 samples, spectral radius 0.78 to 0.82."""
    draw = _draws(0)
    narrow, wide = math.sqrt(128), math.sqrt(512)
    cell = Attention(
        qkv=draw(384, 128) / narrow, out=draw(128, 128) / narrow, up=draw(512, 128) / narrow, down=draw(128, 512) / wide
    )
    x = 1.2 * draw(8, 64, 128)
    return Problem("attention", cell, x, torch.zeros_like(x))


def conv() -> Problem:
    """32 channels of 16 x 16, 16 samples, spectral radius 0.83 to 0.85."""
    draw = _draws(0)
    cell = Conv(draw(32, 32, 3, 3) / math.sqrt(288), draw(32, 32, 3, 3) / math.sqrt(288))
    x = 2 * draw(16, 32, 16, 16)
    return Problem("conv", cell, x, torch.zeros_like(x))


def hard() -> Problem:
    """256 tanh units under a non-normal matrix of norm 1.27, 64 samples, spectral radius up to 0.989."""
    draw, n = _draws(1), 256
    basis = torch.linalg.qr(draw(n, n).double()).Q
    triangle = torch.diag(torch.linspace(-1, 1, n, dtype=torch.float64) * 0.99)
    triangle = triangle + torch.triu(draw(n, n).double(), 1) * 0.5 / 16
    x = 0.02 * draw(64, n)
    return Problem("hard", Dense((basis @ triangle @ basis.T).float()), x, torch.zeros_like(x))


def mdeq() -> Problem:
    """Four scales of 8 to 64 channels at 16 x 16 to 2 x 2, 8 samples, a tuple state, spectral radius 0.71 to 0.84."""
    draw = _draws(0)
    cell = multiscale(draw)
    x = INPUT_SCALE * draw(8, CHANNELS[0], SIDES[0], SIDES[0])
    z0 = tuple(torch.zeros(8, width, side, side) for width, side in zip(CHANNELS, SIDES, strict=True))
    return Problem("mdeq", cell, x, z0)


def mixed_linear() -> Problem:
    """64 linear samples in 64 dimensions with contraction 0.1 to 0.97."""
    draw, n = _draws(0), 64
    basis = torch.linalg.qr(draw(n, n).double()).Q
    symmetric = basis @ torch.diag(torch.linspace(-1, 1, n, dtype=torch.float64)) @ basis.T
    x = draw(64, n)
    context = MixedContext(torch.linspace(0.1, 0.97, 64), x)
    return Problem("mixed linear", MixedLinear(symmetric.float()), context, torch.zeros_like(x))


def mixed_tanh() -> Problem:
    """64 tanh samples of 256 units with gain 0.1 to 1 on the weights of dense256."""
    draw = _draws(0)
    weight = draw(256, 256) / 16
    x = 0.5 * draw(64, 256)
    return Problem("mixed tanh", MixedTanh(weight), MixedContext(torch.linspace(0.1, 1.0, 64), x), torch.zeros_like(x))


CELLS = (dense256, attention, conv, hard, dense1024, mdeq)
MIXED = (mixed_linear, mixed_tanh)


def _draws(seed: int) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator)


def solved(problem: Problem) -> State:
    """Return the fixed point of a problem to float64 rounding, in float64.

    By Newton's method where the state is a short vector, so that the point owes nothing to the solvers that are
    compared; by plain iteration, which contracts there, on the larger cells.
    """
    exact = problem.to(torch.float64)
    z = exact.z0
    if isinstance(z, Tensor) and z.dim() == 2 and z.shape[1] <= 256:
        for _ in range(30):
            g = exact.f(z, exact.context) - z
            if g.norm() <= 1e-14 * z.norm():
                break
            z = z + torch.linalg.solve(_identity(z) - jacobians(exact, z), g)
    else:
        for _ in range(300):
            z = exact.f(z, exact.context)
    return z


def jacobians(problem: Problem, z: Tensor) -> Tensor:
    """Return the Jacobian of every sample at z, (batch, n, n), for problems whose state is a vector."""
    with torch.enable_grad():
        start = z.clone().requires_grad_()
        totals = problem.f(start, problem.context).sum(dim=0)  # samples do not meet, so a sum keeps them apart
        rows = [torch.autograd.grad(total, start, retain_graph=True)[0] for total in totals]
    return torch.stack(rows, dim=1)


def spectral_radii(problem: Problem) -> Tensor:
    """Return the spectral radius of every sample's Jacobian at its fixed point, computed densely in float64."""
    exact, z = problem.to(torch.float64), solved(problem)
    assert isinstance(z, Tensor)
    return torch.linalg.eigvals(jacobians(exact, z)).abs().amax(dim=1)


def _identity(z: Tensor) -> Tensor:
    return torch.eye(z.shape[1], dtype=z.dtype).expand(z.shape[0], -1, -1)


def main() -> None:
    torch.set_num_threads(1)
    for build in (*CELLS, *MIXED):
        problem = build()
        line = f"{problem.name}: state {', '.join(str(tuple(part.shape)) for part in parts(problem.z0))}"
        if isinstance(problem.z0, Tensor) and problem.z0.dim() == 2 and problem.z0.shape[1] <= 256:
            radii = spectral_radii(problem)
            line += f", spectral radius {radii.min():.3f} to {radii.max():.3f} (mean {radii.mean():.3f})"
        print(line)


if __name__ == "__main__":
    main()
