"""Crash loops: five starts in ten minutes, and the sixth plays safe.

Only the time since boot is believed, since the wall clock may be anything. A start of an earlier boot counts until some run has
lasted: a board that reboots every minute is a crash loop too.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from spatialnet_edge.clock import boot_id, since_boot
from spatialnet_edge.durable import write_durably

MAX_STARTS = 5
WITHIN_S = 600.0
FILE = "starts.json"


class Start(msgspec.Struct, frozen=True):
    """When a process started: seconds since the boot of this id."""

    boot: str
    at_s: float


def count_start(folder: Path, now_s: float | None = None) -> bool:
    """Write down a start, before anything that may crash.

    Returns:
        Whether there were `MAX_STARTS` of them lately without one that lasted: start safely.

    Raises:
        OSError: the folder cannot be written.
    """
    now = since_boot() if now_s is None else now_s
    before = [start for start in _read(folder) if start.boot != boot_id() or now - start.at_s < WITHIN_S]
    folder.mkdir(parents=True, exist_ok=True)
    recent = [*before, Start(boot_id(), now)][-MAX_STARTS - 1 :]
    write_durably(folder / FILE, msgspec.json.encode(recent) + b"\n")
    return len(before) >= MAX_STARTS


def forget_starts(folder: Path) -> None:
    """This run has lasted, or ended as it was asked to."""
    (folder / FILE).unlink(missing_ok=True)


def _read(folder: Path) -> list[Start]:
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=list[Start])
    except (OSError, ValueError):
        return []
