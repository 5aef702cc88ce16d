"""Freed memory that stays with the process, so that training does not wait for the system to clear the same pages again and again.

A layer's activations are tens of megabytes. glibc takes blocks that large from the kernel one by one and gives each back when it is
freed, so that every step faults in, page by page and cleared, all that the step before gave away (mallopt(3), M_MMAP_THRESHOLD).
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h


@cache
def keep_freed_memory() -> None:
    """Let this process keep what it frees, up to 2 GiB, for its next large block; does nothing where the C library is not glibc."""
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(M_TOP_PAD, 2**26)
