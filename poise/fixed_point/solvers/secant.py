"""The history of secant pairs that Anderson and Broyden share, and the small system of mixing weights.

With g = f(z) - z, a step remembers the changes dF of f(z) and dG of g at the last evaluations (dX = dF - dG are those
of z) and moves to f(z) - dF gamma. What differs is the system that gamma solves:

- type II Anderson: min |g - dG gamma|;
- type I Anderson (multisecant good Broyden, Fang and Saad 2009): dX^T dG gamma = dX^T g;
- good Broyden in compact form (Byrd, Nocedal and Schnabel 1994, theorem 6.1): (dX^T dG + L) gamma = dX^T g, where L is
  the part of dX^T dX with newer rows than columns. Dropping the oldest pair leaves the exact Broyden matrix of the
  remaining ones, so a bounded history stays right when it wraps.

Reading the history is what a step costs, so dF is kept instead of dX: then the move reads one of the two only, and each
is read from memory once a step. Columns are scaled to unit norm and the small system is solved in float64, so no weight
depends on the scale of the problem. Everything is per group, (batch, groups, ...); under the prefix scope inner
products are summed over the positions up to each one.
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

    df: Tensor  # (batch, groups, history, features)
    dg: Tensor  # (batch, groups, history, features)
    fz: Tensor  # (batch, groups, features), the image before
    g: Tensor  # (batch, groups, features), its residual
    fresh: Tensor  # (batch, groups) bool: no iterate before
    matrix: Tensor  # (batch, groups, history, history), left_i . dg_j, where left is dg for type II and dx otherwise
    right: Tensor  # (batch, groups, history), left_i . g
    xx: Tensor  # dx_i . dx_j: (batch, groups, history, history) for Broyden, its diagonal (..., history) for type I
    step: int = 0  # iterates seen; pair number step - 1 goes to slot (step - 1) % history
    waiting: int = 0  # newest pairs whose products are still to be made
    restarted: bool = False  # whether a group may be fresh


def empty_memory(z: Tensor, history: int, form: Form) -> SecantMemory:
    """Return a memory without pairs."""
    batch, groups, features = z.shape
    pairs = z.new_zeros(batch, groups, history, features)
    small = z.new_zeros(batch, groups, history, dtype=torch.float64)
    square = small.unsqueeze(-1).repeat(1, 1, 1, history)
    return SecantMemory(
        df=pairs,
        dg=pairs.clone(),
        fz=z,
        g=z,
        fresh=torch.ones(batch, groups, dtype=torch.bool, device=z.device),
        matrix=square,
        right=small,
        xx={"type1": small, "type2": small[..., :0], "broyden": square}[form].clone(),
        restarted=True,
    )


def remember(memory: SecantMemory, fz: Tensor, g: Tensor, valid: Tensor | None) -> SecantMemory:
    """Add the pair between the iterate before and this one; its products wait until weights are asked for."""
    if memory.step == 0:
        return replace(memory, fz=fz, g=g, fresh=torch.zeros_like(memory.fresh), step=1, restarted=False)
    slot = (memory.step - 1) % memory.dg.shape[2]
    # What is not to count: entries outside the mask, and groups that have only just begun.
    mask, fresh = valid, memory.fresh
    if memory.restarted:
        begun = (~fresh).unsqueeze(-1).to(g.dtype)
        mask, fresh = begun if valid is None else begun * valid, torch.zeros_like(fresh)
    return replace(
        memory,
        df=write_difference(memory.df, slot, fz, memory.fz, mask),
        dg=write_difference(memory.dg, slot, g, memory.g, mask),
        fz=fz,
        g=g,
        fresh=fresh,
        step=memory.step + 1,
        waiting=memory.waiting + 1,
        restarted=False,
    )


def multiplied(memory: SecantMemory, scope: str, form: Form) -> SecantMemory:
    """Bring the products up to date: those of the pairs that wait, and of the last residual with all pairs."""
    history, waiting = memory.dg.shape[2], memory.waiting
    if not waiting:
        return memory
    used, first = min(memory.step - 1, history), (memory.step - 1 - waiting) % history
    # The pairs that wait, oldest first: a slice of the ring, unless they go over its end.
    wraps = first + waiting > history
    place = slice(first, first + waiting) if not wraps else [slot % history for slot in range(first, first + waiting)]
    newest = (memory.step - 2) % history
    dg, vector = memory.dg[:, :, place], memory.g.unsqueeze(2)
    # Each side of the history is read once, for all vectors. The newest dg is not among them: the pairs that wait add
    # up to the change of the residual since products were made last.
    asked = torch.cat([vector, dg[:, :, :-1]], dim=2) if waiting > 1 else vector
    if form == "type2":
        left = with_g = products(memory.dg, used, asked, scope)
    else:
        dx = memory.df[:, :, place] - dg
        wide = torch.cat([asked, dx], dim=2)
        with_g = products(memory.dg, used, wide, scope)
        with_f = products(memory.df, used, wide if form == "broyden" else asked, scope)
        left = with_f - with_g.narrow(2, 0, with_f.shape[2])
    right, columns = left.select(2, 0), left.narrow(2, 1, waiting - 1)
    last = right - memory.right.narrow(2, 0, used)
    if waiting > 1:
        last = last - columns.sum(dim=2)
    # With one another, the pairs that wait are not in what was known then.
    if form == "type2":
        last[:, :, place] = torch.cat([columns[..., newest], squares(dg[:, :, -1:], scope)], dim=2)
        columns = rows = torch.cat([columns, last.unsqueeze(2)], dim=2)
    else:
        rows = with_g.narrow(2, waiting, waiting)
        last[:, :, place] = rows[..., newest]
        columns = torch.cat([columns, last.unsqueeze(2)], dim=2)
    matrix, xx = memory.matrix, memory.xx
    if torch.is_grad_enabled():
        matrix, xx = matrix.clone(), xx.clone()
    matrix[:, :, :used, place] = columns.transpose(2, 3)
    matrix[:, :, place, :used] = rows
    if form == "broyden":
        own = left.narrow(2, waiting, waiting)
        xx[:, :, :used, place] = own.transpose(2, 3)
        xx[:, :, place, :used] = own
    elif form == "type1":
        xx[:, :, place] = squares(dx, scope)
    if used < history:
        right = torch.nn.functional.pad(right, (0, history - used))
    return replace(memory, matrix=matrix, right=right, xx=xx, waiting=0)


def mixing_weights(memory: SecantMemory, form: Form) -> Tensor:
    """Return gamma (batch, groups, used) for the residual remembered last, whose products are up to date."""
    used = min(memory.step - 1, memory.dg.shape[2])
    dtype = memory.g.dtype
    ridge = RIDGE["type2" if form == "type2" else "type1"][dtype]
    matrix = memory.matrix.narrow(2, 0, used).narrow(3, 0, used).flatten(0, 1)
    right = memory.right.narrow(2, 0, used).flatten(0, 1)
    if form == "type2":
        scale = unit(matrix.diagonal(dim1=1, dim2=2))
        gram = matrix * scale.unsqueeze(2) * scale.unsqueeze(1)
        weights = scale * solve_spd(gram, scale * right, ridge)
    else:
        own = memory.xx.narrow(2, 0, used).flatten(0, 1)
        if form == "broyden":
            own = own.narrow(2, 0, used)
            matrix = torch.addcmul(matrix, own, newer_than(memory.step, used, matrix.device))
            own = own.diagonal(dim1=1, dim2=2)
        rows = unit(own)
        scaled = matrix * rows.unsqueeze(2)
        columns = unit((scaled * scaled).sum(dim=1))
        scaled = scaled * columns.unsqueeze(1)
        # Least squares with singular values below the noise left out smoothly: the rank-revealing solve at the price
        # of a Cholesky factorisation.
        target = torch.bmm((rows * right).unsqueeze(1), scaled).squeeze(1)
        # Padded, since kernels round odd sizes differently by where a matrix stands in memory, and so in the batch.
        wide = torch.nn.functional.pad(scaled, (0, -used % 8, 0, -used % 8))
        normal = torch.bmm(wide.transpose(1, 2), wide)[:, :used, :used].contiguous()
        weights = columns * solve_spd(normal, target, ridge)
    weights = weights.clamp(-LARGEST_WEIGHT, LARGEST_WEIGHT)
    return torch.nan_to_num(weights, nan=0.0).to(dtype).view(*memory.right.shape[:2], used)


def move(z: Tensor, fz: Tensor, memory: SecantMemory, weights: Tensor, damping: float = 1.0) -> Tensor:
    """Return z + damping g - (dX + damping dG) gamma, (batch, groups, features)."""
    gamma = weights.flatten(0, 1).unsqueeze(1)
    start = (fz if damping == 1.0 else torch.lerp(z, fz, damping)).flatten(0, 1).unsqueeze(1)
    moved = torch.baddbmm(start, gamma, _flat(memory.df, weights.shape[-1]), alpha=-1)
    if damping != 1.0:
        moved = torch.baddbmm(moved, gamma, _flat(memory.dg, weights.shape[-1]), alpha=1 - damping)
    return moved.view_as(fz)


@dataclass(frozen=True)
class SecantInverse:
    """What a rule has learnt of (I - J)^-1: the map g -> g - dF K left^T g, left being dX, or dG for type II."""

    df: Tensor  # (batch, groups, history, features)
    dg: Tensor  # (batch, groups, history, features)
    mixing: Tensor  # K, (batch, groups, history, history); zero for slots not in use
    form: Form
    scope: str

    def transposed(self, v: Tensor) -> Tensor:
        """Return v - left K^T dF^T v, which approximates (I - J^T)^-1 v; (batch, groups, features)."""
        history = self.df.shape[2]
        inner = products(self.df, history, v.unsqueeze(2), "sample") @ self.mixing.double()
        if self.scope == "prefix":  # a position's weights saw the positions up to it, so it is seen by those after it
            inner = inner.flip(1).cumsum(dim=1).flip(1)
        weights = inner.squeeze(2).to(v.dtype)
        moved = v
        for pairs, sign in ((self.dg, 1.0),) if self.form == "type2" else ((self.df, 1.0), (self.dg, -1.0)):
            gamma = weights.flatten(0, 1).unsqueeze(1)
            start = moved.flatten(0, 1).unsqueeze(1)
            moved = torch.baddbmm(start, gamma, _flat(pairs, history), alpha=-sign).view_as(v)
        return moved


def inverse(memory: SecantMemory, form: Form, scope: str) -> SecantInverse:
    """Return the quasi-Newton inverse that the pairs remembered stand for."""
    batch, groups, history, _ = memory.dg.shape
    used = max(0, min(memory.step - 1, history))
    mixing = memory.dg.new_zeros(batch, groups, history, history)
    if used:
        units = torch.eye(history, dtype=memory.right.dtype, device=mixing.device)[:used]
        columns = mixing_weights(
            replace(
                memory,
                matrix=memory.matrix.repeat_interleave(used, 0),
                xx=memory.xx.repeat_interleave(used, 0),
                right=units.unsqueeze(1).repeat(batch, groups, 1),
            ),
            form,
        )
        mixing[:, :, :used, :used] = columns.view(batch, used, groups, used).permute(0, 2, 3, 1)
    return SecantInverse(memory.df, memory.dg, mixing, form, scope)


def products(pairs: Tensor, used: int, vectors: Tensor, scope: str) -> Tensor:
    """Return inner products of vectors (batch, groups, n, features) with `used` pairs, (batch, groups, n, used)."""
    # The vectors from the left: this order of the same product is ten times faster in PyTorch's batched kernels.
    inner = torch.bmm(vectors.flatten(0, 1), _flat(pairs, used).transpose(1, 2))
    inner = inner.view(*vectors.shape[:3], used).double()
    return inner.cumsum(dim=1) if scope == "prefix" else inner


def squares(vectors: Tensor, scope: str) -> Tensor:
    """Return squared norms of vectors (batch, groups, n, features), (batch, groups, n) in float64."""
    inner = torch.linalg.vecdot(vectors, vectors).double()
    return inner.cumsum(dim=1) if scope == "prefix" else inner


def _flat(pairs: Tensor, used: int) -> Tensor:
    return pairs.narrow(2, 0, used).flatten(0, 1)


def solve_spd(matrix: Tensor, right: Tensor, ridge: float) -> Tensor:
    """Solve a batch of scaled, symmetric, positive systems, which it may overwrite; an empty column gets weight 0."""
    matrix.diagonal(dim1=-2, dim2=-1).add_(ridge)
    factor, _ = torch.linalg.cholesky_ex(matrix)  # _ex: no wait for the host; what fails is caught as NaN or by growth
    return torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1)


def unit(squares: Tensor) -> Tensor:
    """Return the factors that scale columns of these squared norms to one; for an empty one they have no effect."""
    return squares.clamp_min(torch.finfo(squares.dtype).tiny).rsqrt()


def newer_than(step: int, used: int, device: torch.device) -> Tensor:
    """Return (used, used) with 1 where the pair of the row is newer than that of the column."""
    latest = (step - 2) % used if used else 0
    age = (latest - torch.arange(used, device=device)) % max(used, 1)
    return (age.unsqueeze(1) < age.unsqueeze(0)).double()


def write_difference(buffer: Tensor, slot: int, new: Tensor, old: Tensor, mask: Tensor | None) -> Tensor:
    """Put new - old in a slot of dimension 2, zero where the mask is, in place unless a graph is being recorded."""
    if mask is None and not torch.is_grad_enabled():
        torch.sub(new, old, out=buffer.select(2, slot))
        return buffer
    difference = new - old
    if torch.is_grad_enabled():
        buffer = buffer.clone()
    buffer.select(2, slot).copy_(difference if mask is None else torch.where(mask > 0, difference, 0.0))
    return buffer
