"""Solvers of the backward's linear system u - J^T u = g."""

from poise.fixed_point.linear.base import LinearSolver, as_linear
from poise.fixed_point.linear.gmres import GMRES
from poise.fixed_point.linear.neumann import Neumann

__all__ = ["GMRES", "LinearSolver", "Neumann", "as_linear"]
