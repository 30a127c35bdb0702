"""One batch from the batches of many processes, with the exact gradient and nothing sent back for it.

Data-parallel training averages gradients over processes. A loss L of the whole batch, computed alike by each of W
processes, therefore needs W dL/dz for the rows that are a process's own, and nothing for the others: their own process
adds those. Gathering costs the bytes of the batch in the forward and none in the backward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Which rows of the whole batch a process holds: how many each process has, and its own place among them."""

    sizes: tuple[int, ...]
    rank: int = 0
    group: Any = None

    @property
    def total(self) -> int:
        """Rows of the whole batch."""
        return sum(self.sizes)

    @property
    def processes(self) -> int:
        """Processes that hold a part."""
        return len(self.sizes)

    @property
    def own(self) -> slice:
        """Where the rows of this process stand in the whole batch."""
        first = sum(self.sizes[: self.rank])
        return slice(first, first + self.sizes[self.rank])

    @property
    def share(self) -> float:
        """What a mean over the own rows is multiplied by, so that the average over processes is that of all rows."""
        return self.sizes[self.rank] * self.processes / self.total


def rows_of(z: Tensor, *, gather: bool = True, group: Any = None) -> Rows:
    """Return how the batch of `z` (rows, ...) is spread over the process group; one process where there is none."""
    processes = dist.get_world_size(group) if gather and dist.is_available() and dist.is_initialized() else 1
    if processes == 1:
        return Rows((z.shape[0],))
    own = torch.tensor([z.shape[0]], device=z.device)
    sizes = [torch.empty_like(own) for _ in range(processes)]
    dist.all_gather(sizes, own, group=group)
    return Rows(tuple(torch.cat(sizes).tolist()), dist.get_rank(group), group)


def whole(z: Tensor, rows: Rows) -> Tensor:
    """Return the rows of all processes (total, ...), of `z` alone where there is one process; no gradient."""
    if rows.processes == 1:
        return z.detach()
    z = z.detach().contiguous()
    if len(set(rows.sizes)) == 1:
        gathered = z.new_empty(rows.total, *z.shape[1:])
        dist.all_gather_into_tensor(gathered, z, group=rows.group)
        return gathered
    # The collective wants equal parts: the shorter ones are padded and cut again.
    most = max(rows.sizes)
    padded = torch.cat([z, z.new_zeros(most - len(z), *z.shape[1:])])
    parts = z.new_empty(rows.processes, most, *z.shape[1:])
    dist.all_gather_into_tensor(parts.flatten(0, 1), padded, group=rows.group)
    return torch.cat([part[:size] for part, size in zip(parts, rows.sizes, strict=True)])


def summed(x: Tensor, rows: Rows) -> Tensor:
    """Return the sum of a tensor over the processes; no gradient."""
    if rows.processes > 1:
        x = x.contiguous()
        dist.all_reduce(x, group=rows.group)
    return x


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        return whole(z, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad[ctx.rows.own] * ctx.rows.processes, None


def gathered(z: Tensor, rows: Rows) -> Tensor:
    """Return the rows of all processes, with the gradient that averaging over processes makes the exact one.

    Every process must compute the same loss of what is returned.
    """
    return z if rows.processes == 1 else _Gathered.apply(z, rows)
