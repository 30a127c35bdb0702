"""`poise COMMAND ...`: looks the command up in a static table and turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, TextIO

import poise
from poise.cli.errors import DONE, FAILED, INTERRUPTED, USAGE, MissingPackages, UsageError
from poise.cli.memory import keep_freed_memory
from poise.cli.table import COMMANDS, TASKS, TRAIN_PACKAGES, load
from poise.configs.errors import ConfigError
from poise.configs.fields import nearest
from poise.tasks.process import rank


def help_text() -> str:
    """Return what `poise --help` prints; it fits one screen."""
    commands = [f"  poise {f'{name} {entry.arguments}'.strip():30}{entry.summary}" for name, entry in COMMANDS.items()]
    tasks = [f"  {name:12}{entry.summary}" for name, entry in TASKS.items()]
    return "\n".join(
        [
            f"poise {poise.__version__}: deep equilibrium networks, trained, evaluated and reported by one command.",
            "",
            *commands,
            "",
            "Tasks:",
            *tasks,
            "",
            "`poise COMMAND --help` says more; --debug shows the traceback of an error.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return _dispatch(arguments)
        except SystemExit as stop:  # argparse after --help
            return stop.code if isinstance(stop.code, int) else FAILED
        except BrokenPipeError:  # the reader of our output has left, as `| head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        except KeyboardInterrupt as interrupt:
            return _fail(interrupt, str(interrupt) or "interrupted.", INTERRUPTED, debug)
        except Exception as error:
            return _fail(error, *_verdict(error), debug)


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        print(help_text(), file=sys.stderr)
        return USAGE
    verb, *rest = arguments
    if verb in ("--help", "-h", "help"):
        print(help_text())
        return DONE
    if verb in ("--version", "-V"):
        print(f"poise {poise.__version__}")
        return DONE
    if verb not in COMMANDS:
        raise UsageError(f"there is no command {verb!r}{nearest(verb, list(COMMANDS))}")
    keep_freed_memory()
    return load(COMMANDS[verb].function)(rest)


def _verdict(error: Exception) -> tuple[str, int]:
    """Return the sentence and the exit code for an error."""
    if isinstance(error, UsageError | ConfigError):
        return str(error), USAGE
    if isinstance(error, ImportError) and (error.name or "").split(".")[0] in TRAIN_PACKAGES:
        return str(MissingPackages([str(error.name).split(".")[0]])), USAGE
    # Errors of rooms that import torch: where such an error is, its module has been imported.
    for module, name, code in (
        ("poise.data.errors", "DataError", USAGE),
        ("poise.tasks.errors", "RunError", FAILED),
        ("poise.tasks.errors", "Interrupted", INTERRUPTED),
    ):
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(error, kind):
            return str(error), code
    if isinstance(error, OSError):
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.", FAILED
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first} (--debug shows where)", FAILED


def _fail(error: BaseException, sentence: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    # Every process of a launch finds the same wrong usage; what fails in one alone is told by that one.
    if rank() == 0 or code == FAILED:
        where = f" (process {rank()})" if rank() else ""
        print(f"poise{where}: {sentence}", file=sys.stderr, flush=True)
    return code


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> Any:
    if rank() == 0:
        print(f"poise: warning: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
