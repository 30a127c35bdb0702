"""What sharding may not do: run collectives inside a solve."""

from __future__ import annotations

import sys
from typing import Any

import torch


def refuse_sharded(f: Any) -> None:
    """Refuse a cell that FSDP shards by itself: its collectives would run once an evaluation, unequally often."""
    f = f if isinstance(f, torch.nn.Module) else getattr(f, "cell", f)  # a cell whose weights are pinned
    fsdp = sys.modules.get("torch.distributed.fsdp")  # not there unless somebody uses it
    if fsdp is None or not isinstance(f, torch.nn.Module):
        return
    for name, module in f.named_modules():
        if isinstance(module, (fsdp.FSDPModule, fsdp.FullyShardedDataParallel)):
            part = f" (its part {name!r})" if name else ""
            raise TypeError(
                f"the cell {type(f).__name__}{part} is sharded by itself, so that every evaluation would gather it and "
                "processes that need different numbers of them would wait for each other; shard the layer that holds "
                "the cell instead, as in fully_shard(layer)."
            )
