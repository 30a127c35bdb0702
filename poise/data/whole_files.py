"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from poise.data.errors import DataError

PARTIAL = ".partial"  # ends the name of a file that is being written


@contextmanager
def written_whole(target: Path, advice: str) -> Iterator[BinaryIO]:
    """Give a file to write to; it takes the place of `target` when all is written, or never.

    Each writer has a file of its own, so that of several at once the last one stays, whole. Raises DataError, with
    `advice` on what to do, if the operating system refuses; whatever is raised, nothing half-written remains, unless
    the process is killed.
    """
    partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as file:
            yield file
        os.replace(partial, target)
    except OSError as error:
        raise DataError(f"cannot write {str(target)!r} ({error.strerror or error}); {advice}.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
