"""Puzzles that an equilibrium learns small and solves large: generators and exact checkers as plain functions.

Grids are NumPy arrays of uint8. What an instance is decides its split, so that training and test share none whatever
their seeds. `difficulty` is the number of rounds of singles for Sudoku, the length of the way for a maze and of the
string for prefix sums.
"""

from poise.data.puzzles import maze, prefix, sudoku
from poise.data.puzzles.instances import Instances, Split, in_split

__all__ = ["Instances", "Split", "in_split", "maze", "prefix", "sudoku"]
