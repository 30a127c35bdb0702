"""Arrays of an npz file, opened so that nothing in it can run code."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from poise.data.errors import DataError
from poise.data.sources import unreadable


def read_npz(path: Path, names: Sequence[str], what: str) -> dict[str, np.ndarray]:
    """Return the arrays of these names; `what` the file should be is said where one is missing."""
    try:
        with np.load(path, allow_pickle=False) as held:
            missing = [name for name in names if name not in held.files]
            if missing:
                raise DataError(f"{str(path)!r} holds no {missing[0]!r}; it is no {what}.")
            return {name: held[name] for name in names}
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise unreadable(path, error if isinstance(error, OSError) else ValueError(str(error))) from error
