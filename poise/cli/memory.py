"""What the C library does with memory that the program has freed."""

from __future__ import annotations

import ctypes

# From malloc.h of glibc: parameters of mallopt.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
NEVER = -1
LARGEST_KEPT = 1 << 30


def keep_freed_memory() -> bool:
    """Ask glibc to keep what is freed for the next feature map; return False where there is another C library.

    By default blocks of some megabytes go back to the system at once and come again page by page, zeroed, for every
    layer of every evaluation: a third of the time of a training step on pictures. The process then holds its largest
    size until it ends, so this is for a process that is ours, as a command's is, and no import does it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc: macOS, musl, Windows
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
