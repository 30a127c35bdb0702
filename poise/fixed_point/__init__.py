"""Batched fixed points with a status for every sample and exact gradients, on torch alone.

The folder and its main function share a name, so the module can be called: `poise.fixed_point(f, z0)`.
"""

import sys
from types import ModuleType
from typing import Any

from poise.fixed_point.adjoints import Adjoint, Implicit, JacobianFree, Phantom, Reversible, Unrolled
from poise.fixed_point.linear import GMRES, BiCGSTAB, Dense, LinearSolver, Neumann
from poise.fixed_point.solution import CellWarning, ConvergenceError, ConvergenceWarning, Solution, Status
from poise.fixed_point.solve import find_root
from poise.fixed_point.solve import fixed_point as _fixed_point
from poise.fixed_point.solvers import Anderson, Broyden, External, NewtonKrylov, Picard, Solver
from poise.fixed_point.tally import Counters, Tally
from poise.fixed_point.trajectory import Step

__all__ = [
    "GMRES",
    "Adjoint",
    "Anderson",
    "BiCGSTAB",
    "Broyden",
    "CellWarning",
    "ConvergenceError",
    "ConvergenceWarning",
    "Counters",
    "Dense",
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
    "Step",
    "Tally",
    "Unrolled",
    "find_root",
]


class _CallableModule(ModuleType):
    __doc__ = _fixed_point.__doc__

    def __call__(self, *arguments: Any, **options: Any) -> Solution:
        return _fixed_point(*arguments, **options)


sys.modules[__name__].__class__ = _CallableModule
