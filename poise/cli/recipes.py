"""`poise recipes`: the recipes that ship with poise, a line each."""

from __future__ import annotations

from poise.cli.arguments import Arguments
from poise.cli.errors import DONE


def run(argv: list[str]) -> int:
    """List recipes with the first line of their header comments."""
    Arguments("poise recipes", "List the recipes; use one as poise train TASK --recipe NAME.").parse(argv)
    from poise.cli.table import require_packages

    require_packages()
    from poise.recipes import recipes

    found = recipes()
    width = max(len(recipe.name) for recipe in found) + 2
    for recipe in found:
        print(f"{recipe.name:{width}}{recipe.task:10}{recipe.summary}")
    return DONE
