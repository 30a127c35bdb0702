"""The history of secant pairs that Anderson and Broyden share, and the small system of mixing weights.

With g = f(z) - z, a step remembers dX (changes of z) and dG (changes of g) of the last evaluations and moves to
z + g - (dX + dG) gamma. What differs is the system that gamma solves (`WEIGHTS`):

- type II Anderson: min |g - dG gamma|;
- type I Anderson (multisecant good Broyden, Fang and Saad 2009): dX^T dG gamma = dX^T g;
- good Broyden in compact form (Byrd, Nocedal and Schnabel 1994, theorem 6.1): (dX^T dG + L) gamma = dX^T g, where L is
  the part of dX^T dX with newer rows than columns. Dropping the oldest pair leaves the exact Broyden matrix of the
  remaining ones, so a bounded history stays right when it wraps.

Columns are scaled to unit norm and the small system is solved in float64, so no weight depends on the scale of the
problem. Everything is per group, (batch, groups, ...); under the prefix scope inner products are summed over the
positions up to each one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

Form = Literal["type1", "type2", "broyden"]

# What is added to the unit diagonal of the small system, so that directions of the history that are noise get no
# weight: measured on the cells of benchmarks/evaluations.py, where type II wants the noise of a float32 inner product
# and type I, solved by least squares, keeps more.
RIDGE = {"type2": {torch.float32: 1e-7, torch.float64: 1e-12}, "type1": {torch.float32: 1e-10, torch.float64: 1e-12}}
# Mixing weights beyond this size extrapolate from rounding errors.
LARGEST_WEIGHT = 1e4


@dataclass(frozen=True)
class SecantMemory:
    """Pairs in a ring of `history` slots, with the products that the small system is made of."""

    dx: Tensor  # (batch, groups, history, features)
    dg: Tensor  # (batch, groups, history, features)
    z: Tensor  # (batch, groups, features), the iterate before
    g: Tensor  # (batch, groups, features), its residual
    fresh: Tensor  # (batch, groups) bool: no iterate before
    matrix: Tensor  # (batch, groups, history, history), left_i . dg_j, where left is dg for type II and dx otherwise
    right: Tensor  # (batch, groups, history), left_i . g
    xx: Tensor  # (batch, groups, history, history), dx_i . dx_j: all for Broyden, the diagonal for type I
    step: int = 0  # iterates seen; pair number step - 1 goes to slot (step - 1) % history


def empty_memory(z: Tensor, history: int) -> SecantMemory:
    """Return a memory without pairs."""
    batch, groups, features = z.shape
    pairs = z.new_zeros(batch, groups, history, features)
    square = torch.zeros(batch, groups, history, history, dtype=torch.float64, device=z.device)
    return SecantMemory(
        dx=pairs,
        dg=pairs.clone(),
        z=torch.zeros_like(z),
        g=torch.zeros_like(z),
        fresh=torch.ones(batch, groups, dtype=torch.bool, device=z.device),
        matrix=square,
        right=square[..., 0].clone(),
        xx=square.clone(),
    )


def remember(memory: SecantMemory, z: Tensor, g: Tensor, valid: Tensor | None, scope: str, form: Form) -> SecantMemory:
    """Add the pair between the iterate before and this one, and its products."""
    if memory.step == 0:
        return replace(memory, z=z, g=g, fresh=torch.zeros_like(memory.fresh), step=1)
    history = memory.dx.shape[2]
    slot, used = (memory.step - 1) % history, min(memory.step, history)
    absent = memory.fresh.unsqueeze(-1)
    dx = (z - memory.z).masked_fill(absent, 0.0)
    dg = (g - memory.g).masked_fill(absent, 0.0)
    if valid is not None:
        dx, dg = dx * valid, dg * valid
    pairs_x, pairs_g = write(memory.dx, slot, dx), write(memory.dg, slot, dg)
    left, new = (pairs_g, dg) if form == "type2" else (pairs_x, dx)
    # One pass over the pairs gives the right-hand side; with the one before it, left . dg = left . g - left . g_before.
    right = products(left[:, :, :used], g, scope)
    column = right - memory.right[:, :, :used]
    column[:, :, slot] = products(new.unsqueeze(2), dg, scope).squeeze(2)
    row, xx = None, memory.xx
    if form != "type2":
        row = products(pairs_g[:, :, :used], dx, scope)
        alone = products(dx.unsqueeze(2), dx, scope)
        if form == "broyden":
            xx = write_cross(xx, slot, products(pairs_x[:, :, :used], dx, scope), None)
        else:
            xx = write_cross(xx, slot, torch.zeros_like(column), None)
            xx[:, :, slot, slot] = alone.squeeze(2)
    return replace(
        memory,
        dx=pairs_x,
        dg=pairs_g,
        z=z,
        g=g,
        fresh=torch.zeros_like(memory.fresh),
        matrix=write_cross(memory.matrix, slot, column, row),
        right=write_right(memory.right, right),
        xx=xx,
        step=memory.step + 1,
    )


def mixing_weights(memory: SecantMemory, form: Form) -> Tensor:
    """Return gamma (batch, groups, used) for the residual remembered last."""
    used = min(memory.step - 1, memory.dx.shape[2])
    dtype = memory.g.dtype
    ridge = RIDGE["type2" if form == "type2" else "type1"][dtype]
    matrix, right = memory.matrix[:, :, :used, :used], memory.right[:, :, :used]
    if form == "type2":
        scale = unit(matrix.diagonal(dim1=-2, dim2=-1))
        gram = matrix * scale.unsqueeze(-1) * scale.unsqueeze(-2)
        weights = scale * solve_spd(gram, scale * right, ridge)
    else:
        if form == "broyden":
            matrix = matrix + memory.xx[:, :, :used, :used] * newer_than(memory.step, used, matrix.device)
        rows = unit(memory.xx[:, :, :used, :used].diagonal(dim1=-2, dim2=-1))
        scaled = matrix * rows.unsqueeze(-1)
        columns = unit(scaled.square().sum(dim=-2))
        scaled = scaled * columns.unsqueeze(-2)
        # Least squares with singular values below the noise left out smoothly: the rank-revealing solve at the price
        # of a Cholesky factorisation.
        target = (scaled.transpose(-1, -2) @ (rows * right).unsqueeze(-1)).squeeze(-1)
        weights = columns * solve_spd(scaled.transpose(-1, -2) @ scaled, target, ridge)
    largest = weights.detach().abs().amax(dim=-1, keepdim=True)
    weights = weights * (LARGEST_WEIGHT / largest.clamp_min(LARGEST_WEIGHT))
    return torch.nan_to_num(weights, nan=0.0, posinf=0.0, neginf=0.0).to(dtype)


def combine(memory: SecantMemory, weights: Tensor, damping: float) -> Tensor:
    """Return (dX + damping dG) gamma, (batch, groups, features)."""
    used = weights.shape[-1]
    gamma = weights.unsqueeze(2)
    moved = gamma @ memory.dx[:, :, :used]
    return (moved + damping * (gamma @ memory.dg[:, :, :used])).squeeze(2)


def products(pairs: Tensor, vector: Tensor, scope: str) -> Tensor:
    """Return the inner products of each pair with a vector, (batch, groups, used) in float64."""
    inner = (pairs * vector.unsqueeze(2)).sum(dim=-1).double()
    return inner.cumsum(dim=1) if scope == "prefix" else inner


def solve_spd(matrix: Tensor, right: Tensor, ridge: float) -> Tensor:
    """Solve a batch of scaled, symmetric, positive systems; an empty column gets weight 0."""
    used = matrix.shape[-1]
    damped = matrix + ridge * torch.eye(used, dtype=matrix.dtype, device=matrix.device)
    factor, _ = torch.linalg.cholesky_ex(damped)  # _ex: no wait for the host; what fails is caught as NaN or by growth
    return torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1)


def unit(squares: Tensor) -> Tensor:
    """Return the factors that scale columns of these squared norms to one; 0 for an empty column."""
    return torch.where(squares > 0, squares.clamp_min(torch.finfo(squares.dtype).tiny).rsqrt(), 0.0)


def newer_than(step: int, used: int, device: torch.device) -> Tensor:
    """Return (used, used) with 1 where the pair of the row is newer than that of the column."""
    latest = (step - 2) % used if used else 0
    age = (latest - torch.arange(used, device=device)) % max(used, 1)
    return (age.unsqueeze(1) < age.unsqueeze(0)).double()


def write(buffer: Tensor, slot: int, value: Tensor) -> Tensor:
    """Put a value in a slot of dimension 2, in place unless a graph is being recorded."""
    if torch.is_grad_enabled():
        buffer = buffer.clone()
    buffer[:, :, slot] = value
    return buffer


def write_right(buffer: Tensor, value: Tensor) -> Tensor:
    """Put the right-hand side of the slots in use."""
    if torch.is_grad_enabled():
        buffer = buffer.clone()
    buffer[:, :, : value.shape[2]] = value
    return buffer


def write_cross(square: Tensor, slot: int, column: Tensor, row: Tensor | None) -> Tensor:
    """Put a pair's products in its column and its row (the same where the matrix is symmetric)."""
    used = column.shape[-1]
    if torch.is_grad_enabled():
        square = square.clone()
    square[:, :, :used, slot] = column
    square[:, :, slot, :used] = column if row is None else row
    return square
