"""Bytes that a computation holds for its backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def activation_bytes(run: Callable[[], Any], exclude: Iterable[Tensor] = ()) -> int:
    """Return the bytes of the distinct storages that `run` saves for the backward.

    `exclude`: tensors whose storages do not count, such as parameters and inputs. `run` returns what keeps the graph
    alive; it is dropped afterwards.
    """
    left_out = {tensor.untyped_storage().data_ptr() for tensor in exclude}
    held: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no storage is freed and its address used again while we count

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # An output that its own operation saves would hold the graph that holds it; autograd attaches it again.
        data = tensor.detach()
        if storage.data_ptr() not in left_out:
            held[storage.data_ptr()] = storage.nbytes()
            alive.append(data)
        return data

    with torch.enable_grad(), saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    del result
    return sum(held.values())
