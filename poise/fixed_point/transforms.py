"""What the transforms of `torch.func` may do with a solve, and the refusal of what they may not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch

from poise.fixed_point.tree import tree_leaves

BATCHED_SAMPLES = (
    "fixed_point stops every sample by itself, which torch.func.vmap cannot follow; give all samples, or all members "
    "of an ensemble, as rows of one batch with their own weights in the context, f(z, context), or loop over them."
)

BATCHED_GRADIENTS = (
    "several gradients were batched into one backward (is_grads_batched, vectorize=True), but fixed_point solves for "
    "one at a time; ask for one after the other."
)
BATCHED_TANGENTS = (
    "torch.func.jacfwd and vmap batch several tangents into one, but fixed_point solves for one at a time; call "
    "torch.func.jvp for each direction, or torch.autograd.functional.jacobian."
)


def refuse_inference(what: str) -> None:
    """Raise where `torch.inference_mode()` would make every derivative zero in silence."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            f"{what} needs derivatives of the cell, which torch.inference_mode() forbids; use torch.no_grad() instead."
        )


def in_transform() -> bool:
    """Whether a transform of `torch.func` is being traced."""
    return _functorch.peek_interpreter_stack() is not None


def innermost(tensor: Tensor) -> Tensor:
    """Return the tensor under all wrappers of transforms."""
    while _functorch.is_functorch_wrapped_tensor(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor


def is_batched(tensor: Tensor) -> bool:
    """Whether a transform has put a batch of values under this tensor (`vmap`, `is_grads_batched`)."""
    while _functorch.is_functorch_wrapped_tensor(tensor):
        if _functorch.is_batchedtensor(tensor):
            return True
        tensor = _functorch.get_unwrapped(tensor)
    return _functorch.is_legacy_batchedtensor(tensor)


def admitted(f: Callable[..., Any], inputs: Any, follows_recorded: bool) -> Callable[..., Any]:
    """Return `f` if the transforms around this solve can pass through it, watched for what it closes over.

    `follows_recorded`: whether the adjoint consists of recorded operations alone, which reverse-mode transforms follow.
    """
    stack = _functorch.get_interpreter_stack()
    if not stack:
        return f
    kinds = {interpreter.key() for interpreter in stack}
    if _functorch.TransformType.Grad in kinds and torch.is_grad_enabled() and not follows_recorded:
        raise RuntimeError(
            "the reverse-mode transforms of torch.func (grad, vjp, jacrev, hessian) cannot pass through a backward "
            "that is a solve of its own; use torch.autograd.grad or torch.autograd.functional, or an adjoint that "
            "records its steps, Phantom() or Unrolled()."
        )
    if _functorch.TransformType.Vmap not in kinds:
        return f
    refuse_batched(inputs)

    def watched(*arguments: Any) -> Any:
        out = f(*arguments)
        refuse_batched(out)
        return out

    return watched


def refuse_batched(tree: Any, sentence: str = BATCHED_SAMPLES) -> None:
    """Raise where a tensor of the tree holds a batch of values for one."""
    if any(is_batched(leaf) for _, leaf in tree_leaves(tree)):
        raise RuntimeError(sentence)
