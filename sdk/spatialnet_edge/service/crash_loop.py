"""Crash-loop detection: after five starts in ten minutes, the sixth uses safe mode.

Only the time since boot is used, because the wall clock may be wrong. A start of an earlier boot counts unless it worked for a
while: a board that reboots every minute is a crash loop, one that is switched off after every flight is not.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from spatialnet_edge.core.atomic_io import write_durably
from spatialnet_edge.core.clock import boot_id, since_boot

MAX_STARTS = 5
WITHIN_S = 600.0
FILE = "starts.json"


class Start(msgspec.Struct, frozen=True):
    """A start of the service: boot id, seconds since that boot, and whether it worked for a while."""

    boot: str
    at_s: float
    lasted: bool = False


def count_start(folder: Path, now_s: float | None = None) -> bool:
    """Record a start, before anything that may crash.

    Returns:
        True for safe mode: there were `MAX_STARTS` recent starts, and none of them lasted.

    Raises:
        OSError: the folder cannot be written.
    """
    now = since_boot() if now_s is None else now_s
    before = _recent(folder, now)
    folder.mkdir(parents=True, exist_ok=True)
    recent = [*before, Start(boot_id(), now)][-MAX_STARTS - 1 :]
    write_durably(folder / FILE, msgspec.json.encode(recent) + b"\n")
    return len(before) >= MAX_STARTS


def forgive_start(folder: Path) -> None:
    """Do not count this start: it was refused for its configuration, which is not a crash."""
    starts = _read(folder)
    if starts:
        write_durably(folder / FILE, msgspec.json.encode(starts[:-1]) + b"\n")


def is_crash_loop(folder: Path) -> bool:
    """The result of `count_start`, without counting."""
    return len(_recent(folder, since_boot())) >= MAX_STARTS


def note_lasted(folder: Path) -> None:
    """Record that this run has worked for a while."""
    starts = _read(folder)
    if starts:
        lasted = [*starts[:-1], msgspec.structs.replace(starts[-1], lasted=True)]
        write_durably(folder / FILE, msgspec.json.encode(lasted) + b"\n")


def _recent(folder: Path, now_s: float) -> list[Start]:
    return [start for start in _read(folder) if _counts(start, now_s)]


def _counts(start: Start, now_s: float) -> bool:
    return now_s - start.at_s < WITHIN_S if start.boot == boot_id() else not start.lasted


def forget_starts(folder: Path) -> None:
    """Forget all starts: this run has lasted, or was stopped on request."""
    (folder / FILE).unlink(missing_ok=True)


def _read(folder: Path) -> list[Start]:
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=list[Start])
    except (OSError, ValueError):
        return []
