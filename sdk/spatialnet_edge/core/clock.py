"""Clocks: a monotonic one for intervals, the wall clock for people, and the boot that the monotonic one counts from."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def boot_id() -> str:
    """The kernel's id of this boot (random(4)); empty if there is none. Monotonic times are comparable only within one boot."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def since_boot() -> float:
    """Seconds since boot, including sleep (CLOCK_BOOTTIME, clock_gettime(2)). Changes of the wall clock have no effect."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
