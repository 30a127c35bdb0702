"""Where a text lies: from what a user wrote to a file or a folder with splits."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from poise.data.errors import DataError

EMBEDDED = "embedded"
SPLITS = ("train", "valid", "test")
# Folder layouts in order of preference; every file may be plain or end in .gz, and only `test` may be missing.
LAYOUTS = ("{split}.txt", "wiki.{split}.tokens")
_LISTED = 12  # names that a message shows before it only counts


def data_folder() -> tuple[Path, str]:
    """Return the folder in which sets are looked up by name, and the setting that chose it.

    It is $POISE_DATA, else $XDG_CACHE_HOME/poise, else ~/.cache/poise; read anew at every call.
    """
    return _chosen_folder("POISE_DATA", "poise")


def cache_folder() -> Path:
    """Return the folder in which token files are kept, which may be emptied at any time.

    It is $POISE_CACHE, else $XDG_CACHE_HOME/poise/tokens, else ~/.cache/poise/tokens; read anew at every call.
    """
    return _chosen_folder("POISE_CACHE", "poise/tokens")[0]


def _chosen_folder(variable: str, below: str) -> tuple[Path, str]:
    """Return the folder that the environment variable names, or one below the user's cache; and what decided."""
    chosen = os.environ.get(variable, "")
    if chosen:
        return Path(os.path.abspath(os.path.expanduser(chosen))), variable
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(cache):  # its specification says that a relative path is to be ignored
        return Path(cache) / below, f"XDG_CACHE_HOME; set {variable} to use another"
    return Path(os.path.expanduser("~/.cache")) / below, f"the default; set {variable} to use another"


def locate(source: str) -> Path:
    """Return the existing file or folder that `source` means: a path, else a bare name in the data folder.

    Raises DataError, with the names that are available and the nearest one, if there is none.
    """
    if not source.strip():
        raise DataError(f"the data source {source!r} is blank; pass '{EMBEDDED}', a text file, a folder or a name.")
    path = Path(os.path.expanduser(source))
    if _exists(path):
        return path
    if Path(source).name != source:
        raise DataError(_missing_path(source, path))
    folder, _ = data_folder()
    for suffix in ("", ".txt", ".txt.gz"):
        if _exists(folder / (source + suffix)):
            return folder / (source + suffix)
    raise DataError(_missing_name(source))


def split_files(folder: Path) -> dict[str, Path]:
    """Return the files of a folder's splits: `train`, `valid` and, where there is one, `test`.

    Raises DataError if the folder cannot be read or holds no complete layout.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_file())
    except OSError as error:
        raise unreadable(folder, error) from error
    for layout in LAYOUTS:
        files = _match(layout, names, folder)
        if {"train", "valid"} <= files.keys():
            return files
    expected = " nor ".join(
        " and ".join(layout.format(split=split) for split in ("train", "valid")) for layout in LAYOUTS
    )
    raise DataError(
        f"the folder {str(folder)!r} has neither {expected} (plain or .gz), but holds {_listing(names, 'no file')}; "
        "add or rename the files."
    )


def unreadable(path: Path, error: OSError | ValueError) -> DataError:
    """Return the error for a path that the operating system refuses."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return DataError(f"cannot read {str(path)!r} ({reason}); check the path and its permissions.")


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # ValueError: a null byte
        raise unreadable(path, error) from error
    return True


def _match(layout: str, names: list[str], folder: Path) -> dict[str, Path]:
    files = {}
    for split in SPLITS:
        plain = layout.format(split=split)
        for name in (plain, plain + ".gz"):
            if name in names:
                files[split] = folder / name
                break
    return files


def _listing(names: list[str], empty: str) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more if names else empty


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:  # a message is being written already: an unreadable folder offers no names
        return []


def _sets(folder: Path) -> list[str]:
    """Return the names under which the texts of `folder` can be asked for."""
    names = []
    for entry in _entries(folder):
        path = folder / entry
        if os.path.isdir(path):
            if any({"train", "valid"} <= _match(layout, _entries(path), path).keys() for layout in LAYOUTS):
                names.append(entry)
        elif entry.endswith((".txt", ".txt.gz")):
            names.append(entry.removesuffix(".gz").removesuffix(".txt"))
    return sorted(set(names))


def nearest(name: str, candidates: list[str]) -> str | None:
    """Return the candidate that is most like a name, if any is."""
    return next(iter(difflib.get_close_matches(name, candidates, n=1)), None)


def _missing_path(source: str, path: Path) -> str:
    if not os.path.isdir(path.parent):
        return f"there is no file or folder {source!r}, nor a folder {str(path.parent)!r}; check the path."
    near = nearest(path.name, _entries(path.parent))
    hint = f"perhaps you meant {str(path.parent / near)!r}" if near else "check the path"
    return f"there is no file or folder {source!r}; {hint}."


def _missing_name(source: str) -> str:
    folder, setting = data_folder()
    where = f"{str(folder)!r} ({setting})" + ("" if os.path.isdir(folder) else ", which does not exist")
    names = [EMBEDDED, *_sets(folder)]
    near = nearest(source, names + _entries(Path()))
    hint = f"perhaps you meant {near!r}" if near else "pass one of these or a path"
    return (
        f"there is no text {source!r}: no file or folder of that name here and none in {where}; "
        f"available by name: {_listing(names, '')}; {hint}."
    )
