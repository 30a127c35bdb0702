"""Errors of a run, and its interruption."""

DIVERGENCE_REMEDY = (
    "lower optimizer.lr or optimizer.matrix_lr, or clip harder (trainer.gradient_clip_val)"  # ends a sentence
)


class RunError(RuntimeError):
    """A run cannot go on or a folder holds no usable run; the message is one sentence that says what to do."""


class Interrupted(Exception):
    """A run was stopped by Ctrl-C after it saved where it is; the message says how to resume it."""
