"""Trees of tensors: the few operations that contexts, solver memories and states need."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def tree_map(transform: Callable[[Tensor], Any], tree: Any) -> Any:
    """Apply `transform` to every tensor of a tree of tuples, lists, dicts and dataclasses; the rest passes through."""
    if isinstance(tree, Tensor):
        return transform(tree)
    if isinstance(tree, tuple):
        children = [tree_map(transform, child) for child in tree]
        return type(tree)(*children) if hasattr(tree, "_fields") else tuple(children)
    if isinstance(tree, list):
        return [tree_map(transform, child) for child in tree]
    if isinstance(tree, dict):
        return {key: tree_map(transform, child) for key, child in tree.items()}
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        twin = copy.copy(tree)
        for field in dataclasses.fields(tree):  # past frozen and init=False
            object.__setattr__(twin, field.name, tree_map(transform, getattr(tree, field.name)))
        return twin
    return tree


def tree_leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield (path, tensor) for every tensor of a tree, in a fixed order; paths read like Python: `['mask'][0]`."""
    if isinstance(tree, Tensor):
        yield path, tree
    elif isinstance(tree, list | tuple):
        for position, child in enumerate(tree):
            yield from tree_leaves(child, f"{path}[{position}]")
    elif isinstance(tree, dict):
        for key, child in tree.items():
            yield from tree_leaves(child, f"{path}[{key!r}]")
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        for field in dataclasses.fields(tree):
            yield from tree_leaves(getattr(tree, field.name), f"{path}.{field.name}")


def opaque_leaf(tree: Any, path: str = "") -> str | None:
    """Return the first part of a tree whose tensors these functions would not find, as `path is a Type`, or None."""
    if tree is None or isinstance(tree, Tensor | str | bytes | bool | int | float | complex):
        return None
    children: list[tuple[str, Any]]
    if isinstance(tree, list | tuple):
        children = [(f"{path}[{position}]", child) for position, child in enumerate(tree)]
    elif isinstance(tree, dict):
        children = [(f"{path}[{key!r}]", child) for key, child in tree.items()]
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        children = [(f"{path}.{field.name}", getattr(tree, field.name)) for field in dataclasses.fields(tree)]
    else:
        return f"{path} is a {type(tree).__name__}"
    return next((found for name, child in children if (found := opaque_leaf(child, name))), None)


def tree_replace(tree: Any, tensors: Iterator[Tensor]) -> Any:
    """Return the tree with its tensors replaced, in the order of `tree_leaves`."""
    return tree_map(lambda _: next(tensors), tree)


def select_rows(tree: Any, index: Tensor) -> Any:
    """Keep the rows `index` (int64) of the leading dimension of every tensor."""
    return tree_map(lambda leaf: leaf.index_select(0, index), tree)


def scatter_rows(tree: Any, index: Tensor, rows: Any) -> Any:
    """Put `rows` at `index` of the leading dimension of every tensor, in a copy."""
    new = iter([leaf for _, leaf in tree_leaves(rows)])
    return tree_map(lambda leaf: leaf.index_copy(0, index, next(new)), tree)


def where_rows(mask: Tensor, tree: Any, other: Any) -> Any:
    """Take `tree` where `mask` holds and `other` elsewhere; `mask` spans the leading dimensions of every tensor."""
    others = iter([leaf for _, leaf in tree_leaves(other)])

    def choose(leaf: Tensor) -> Tensor:
        wide = mask.reshape(mask.shape + (1,) * (leaf.dim() - mask.dim()))
        return torch.where(wide, leaf, next(others))

    return tree_map(choose, tree)
