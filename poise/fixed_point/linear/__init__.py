"""Solvers of the backward's linear system u - J^T u = g."""

from poise.fixed_point.linear.base import LinearSolver, Product, as_linear
from poise.fixed_point.linear.bicgstab import BiCGSTAB
from poise.fixed_point.linear.dense import Dense
from poise.fixed_point.linear.gmres import GMRES
from poise.fixed_point.linear.neumann import Neumann

__all__ = ["GMRES", "BiCGSTAB", "Dense", "LinearSolver", "Neumann", "Product", "as_linear"]
