"""poise: deep equilibrium networks that converge, say so when they don't, and cost what they should."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from poise import data, models, nn
    from poise.fixed_point import (
        GMRES,
        Adjoint,
        Anderson,
        Broyden,
        CellWarning,
        ConvergenceError,
        ConvergenceWarning,
        External,
        Implicit,
        JacobianFree,
        LinearSolver,
        Neumann,
        Phantom,
        Picard,
        Solution,
        Solver,
        Status,
        Unrolled,
        find_root,
    )
    from poise.fixed_point.solve import fixed_point
    from poise.nn import Equilibrium

# Public names and the module each comes from, imported when first asked for: the command line answers without torch.
_HOME = {
    **dict.fromkeys(
        [
            "Adjoint",
            "Anderson",
            "Broyden",
            "CellWarning",
            "ConvergenceError",
            "ConvergenceWarning",
            "External",
            "GMRES",
            "Implicit",
            "JacobianFree",
            "LinearSolver",
            "Neumann",
            "Phantom",
            "Picard",
            "Solution",
            "Solver",
            "Status",
            "Unrolled",
            "find_root",
        ],
        "poise.fixed_point",
    ),
    "Equilibrium": "poise.nn",
}
_ROOMS = ("data", "fixed_point", "models", "nn")

__all__ = [
    "GMRES",
    "Adjoint",
    "Anderson",
    "Broyden",
    "CellWarning",
    "ConvergenceError",
    "ConvergenceWarning",
    "Equilibrium",
    "External",
    "Implicit",
    "JacobianFree",
    "LinearSolver",
    "Neumann",
    "Phantom",
    "Picard",
    "Solution",
    "Solver",
    "Status",
    "Unrolled",
    "data",
    "find_root",
    "fixed_point",
    "models",
    "nn",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"poise.{name}")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'poise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
