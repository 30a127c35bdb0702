"""Rules for the next iterate, one a file."""

from poise.fixed_point.solvers.anderson import Anderson
from poise.fixed_point.solvers.base import Solver
from poise.fixed_point.solvers.broyden import Broyden
from poise.fixed_point.solvers.external import External
from poise.fixed_point.solvers.newton_krylov import NewtonKrylov
from poise.fixed_point.solvers.picard import Picard

__all__ = ["Anderson", "Broyden", "External", "NewtonKrylov", "Picard", "Solver"]
