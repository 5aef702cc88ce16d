"""Keep freed memory in the process, so that training does not fault in the same pages repeatedly.

A layer's activations take tens of megabytes. glibc maps each block of this size and unmaps it when it is
freed, so that every step faults in and clears all of these pages again (mallopt(3), M_MMAP_THRESHOLD).
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h


@cache
def keep_freed_memory() -> None:
    """Keep up to 2 GiB of freed memory in this process for later blocks. Does nothing if the C library is not glibc."""
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(M_TOP_PAD, 2**26)
