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
        BiCGSTAB,
        Broyden,
        CellWarning,
        ConvergenceError,
        ConvergenceWarning,
        Dense,
        External,
        Implicit,
        JacobianFree,
        LinearSolver,
        Neumann,
        NewtonKrylov,
        Phantom,
        Picard,
        Reversible,
        Solution,
        Solver,
        Status,
        Unrolled,
        find_root,
    )
    from poise.fixed_point.solve import fixed_point
    from poise.nn import Diagnosis, Equilibrium, diagnose

__all__ = [
    "GMRES",
    "Adjoint",
    "Anderson",
    "BiCGSTAB",
    "Broyden",
    "CellWarning",
    "ConvergenceError",
    "ConvergenceWarning",
    "Dense",
    "Diagnosis",
    "Equilibrium",
    "External",
    "Implicit",
    "JacobianFree",
    "LinearSolver",
    "Neumann",
    "NewtonKrylov",
    "Phantom",
    "Picard",
    "Reversible",
    "Solution",
    "Solver",
    "Status",
    "Unrolled",
    "data",
    "diagnose",
    "find_root",
    "fixed_point",
    "models",
    "nn",
]


_ROOMS = ("data", "fixed_point", "models", "nn")
_LAYERS = ("Diagnosis", "Equilibrium", "diagnose")


# Names are imported when first asked for, so that the command line answers without torch.
def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"poise.{name}")
    if name in __all__:
        return getattr(import_module("poise.nn" if name in _LAYERS else "poise.fixed_point"), name)
    raise AttributeError(f"module 'poise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
