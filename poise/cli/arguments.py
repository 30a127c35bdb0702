"""argparse whose errors are one sentence with the nearest valid option."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from poise.cli.errors import UsageError
from poise.configs.fields import nearest


class Arguments(argparse.ArgumentParser):
    """A parser for the short commands; the settings of a task have their own (`settings.py`)."""

    def __init__(self, prog: str, description: str, **kwargs: Any) -> None:
        self.known_options: list[str] = []
        super().__init__(prog=prog, description=description, allow_abbrev=False, **kwargs)

    def add_argument(self, *names: str, **kwargs: Any) -> argparse.Action:
        """Add an argument and remember its name for hints."""
        self.known_options += [name for name in names if name.startswith("--")]
        return super().add_argument(*names, **kwargs)

    def parse(self, argv: list[str]) -> argparse.Namespace:
        """Return the arguments, or raise a UsageError."""
        for argument in argv:
            name = argument.split("=")[0]
            if name.startswith("--") and name != "--" and name not in self.known_options:
                raise UsageError(f"{self.prog} has no option {name}{nearest(name, self.known_options)}")
        known, unknown = self.parse_known_args(argv)
        if unknown:
            raise UsageError(f"{self.prog} does not know what to do with {unknown[0]!r}; see {self.prog} --help.")
        return known

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print below its usage."""
        raise UsageError(f"{self.prog}: {message}; see {self.prog} --help.")
