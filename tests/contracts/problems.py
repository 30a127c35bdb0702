"""Fixed-point problems with known answers: every solver, linear solver and adjoint is tried on all of them.

A problem's oracles use neither the solvers nor the adjoints of poise: the answer comes from a long plain iteration in
float64, the gradient from the dense Jacobian.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Problem:
    name: str
    f: Callable[[Any, Any], Any]  # f(z, x), differentiable in z, x and the parameters
    z0: Any
    x: Tensor
    parameters: tuple[Tensor, ...] = field(default=())

    def solution(self, x: Tensor | None = None, steps: int = 400) -> Any:
        """The fixed point, by plain iteration."""
        z = self.z0
        with torch.no_grad():
            for _ in range(steps):
                z = self.f(z, self.x if x is None else x)
        return z


def flatten(state: Any) -> Tensor:
    parts = state if isinstance(state, tuple) else (state,)
    return torch.cat([part.reshape(part.shape[0], -1) for part in parts], dim=1)


def unflatten(flat: Tensor, like: Any) -> Any:
    parts = like if isinstance(like, tuple) else (like,)
    pieces = flat.split([part[0].numel() for part in parts], dim=1)
    out = tuple(piece.reshape(part.shape) for piece, part in zip(pieces, parts, strict=True))
    return out if isinstance(like, tuple) else out[0]


def dense_gradients(problem: Problem, weights: Tensor) -> list[Tensor]:
    """d (weights . z*) / d (x, parameters) from the dense Jacobian of the whole batch, solved directly."""
    z = problem.solution()
    x = problem.x.detach().requires_grad_()
    parameters = problem.parameters

    def flat(vector: Tensor) -> Tensor:
        return flatten(problem.f(unflatten(vector.reshape(weights.shape), z), problem.x)).reshape(-1)

    jacobian = torch.autograd.functional.jacobian(flat, flatten(z).reshape(-1))
    eye = torch.eye(len(jacobian), dtype=jacobian.dtype)
    u = torch.linalg.solve(eye - jacobian.T, weights.reshape(-1)).reshape(weights.shape)
    image = flatten(problem.f(z, x))
    return list(torch.autograd.grad(image, [x, *parameters], u))


def _draw(seed: int) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def dense(batch: int = 4, n: int = 6, gain: float = 0.8, seed: int = 0) -> Problem:
    draw = _draw(seed)
    weight = draw(n, n)
    weight = (gain * weight / torch.linalg.matrix_norm(weight, 2)).requires_grad_()
    return Problem(
        "dense", lambda z, x: torch.tanh(z @ weight.T + x), torch.zeros(batch, n).double(), draw(batch, n), (weight,)
    )


def attention(batch: int = 3, length: int = 4, width: int = 6) -> Problem:
    draw = _draw(1)
    qkv = (0.4 * draw(3 * width, width) / math.sqrt(width)).requires_grad_()
    out = (0.4 * draw(width, width) / math.sqrt(width)).requires_grad_()

    def f(z: Tensor, x: Tensor) -> Tensor:
        q, k, v = (z @ qkv.T).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True) @ out.T
        return F.layer_norm(0.5 * z + mixed + x, (width,))

    return Problem(
        "attention", f, torch.zeros(batch, length, width).double(), 2 * draw(batch, length, width), (qkv, out)
    )


def conv(batch: int = 2, channels: int = 4, side: int = 4) -> Problem:
    draw = _draw(2)
    kernel = (0.3 * draw(channels, channels, 3, 3) / math.sqrt(9 * channels)).requires_grad_()

    def f(z: Tensor, x: Tensor) -> Tensor:
        return F.group_norm(torch.tanh(F.conv2d(z, kernel, padding=1) + x) + 0.3 * z, 2)

    return Problem(
        "conv", f, torch.zeros(batch, channels, side, side).double(), 2 * draw(batch, channels, side, side), (kernel,)
    )


def pair(batch: int = 3, n: int = 4, m: int = 2) -> Problem:
    """A state of two parts of different shape that act on each other."""
    draw = _draw(3)
    first, second = (0.3 * draw(n, n)).requires_grad_(), (0.3 * draw(n, 2 * m)).requires_grad_()

    def f(z: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = z
        flat = b.reshape(b.shape[0], -1)
        return torch.tanh(a @ first.T + x), torch.sin(a @ second + 0.2 * flat).reshape(b.shape)

    return Problem(
        "pair", f, (torch.zeros(batch, n).double(), torch.zeros(batch, 2, m).double()), draw(batch, n), (first, second)
    )


def linear(contractions: Tensor, n: int = 16, seed: int = 0) -> Problem:
    """f_i(z) = c_i z S + x_i with S symmetric of spectrum -1..1: sample i contracts by c_i."""
    draw = _draw(seed)
    basis = torch.linalg.qr(draw(n, n)).Q
    matrix = basis @ torch.diag(torch.linspace(-1, 1, n).double()) @ basis.T
    x = torch.cat([draw(len(contractions), n), contractions.double().unsqueeze(1)], dim=1)
    return Problem("linear", lambda z, x: x[:, -1:] * (z @ matrix) + x[:, :-1], torch.zeros(len(x), n).double(), x)


PROBLEMS = {make.__name__: make for make in (dense, attention, conv, pair)}
