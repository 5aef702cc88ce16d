"""Two clocks: the monotonic one for every interval, the wall clock for people; and which boot the monotonic one counts from."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def boot_id() -> str:
    """The kernel's id of this boot (random(4)); empty where there is none. A monotonic time means nothing without it."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def since_boot() -> float:
    """Seconds since this boot, asleep or awake (CLOCK_BOOTTIME, clock_gettime(2)); steps of the wall clock do not touch it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
