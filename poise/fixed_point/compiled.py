"""How a solve lives with `torch.compile`: it stays outside itself, and goes through compiled cells repeatedly."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


def outside_compilation(solve: Callable[..., Result]) -> Callable[..., Result]:
    """Return `solve` as a function that a compiled caller runs as it is written.

    Its loop depends on the numbers, and its gradient on a graph of one evaluation. The compiler's own wrapper would
    import the compiler, seconds of work, for everyone; here it is asked for only where somebody has imported it.
    """

    outside: Callable[..., Result] | None = None

    @functools.wraps(solve)
    def run(*arguments: Any, **options: Any) -> Result:
        nonlocal outside
        if "torch._dynamo" not in sys.modules:
            return solve(*arguments, **options)
        if outside is None:
            outside = torch.compiler.disable(solve)
        return outside(*arguments, **options)

    run._torchdynamo_disable = True  # type: ignore[attr-defined]
    return run


def reusable_graphs() -> AbstractContextManager[Any]:
    """Let graphs that the compiler makes of a cell, and backwards through them, be used more than once.

    The products of a backward go through one graph again and again; the compiler would give its buffers away in the
    first. The setting is read when a graph is made and when it is used, so both stand under it.
    """
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    from torch._functorch import config

    return config.patch(donated_buffer=False)
