"""Events: written to standard error for the supervisor's log and to a journal for the ground, and counted."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from threading import Lock
from typing import final

from spatialnet_edge.core.clock import boot_id, since_boot
from spatialnet_edge.core.printable import printable
from spatialnet_edge.service.diagnostics import Diagnostics
from spatialnet_edge.sinks.journal import Journal

SEGMENT_BYTES, TOTAL_BYTES = 1 << 20, 16 << 20


@final
class Events:
    """Function of an event's name and one line of text; callable from any thread.

    Attributes:
        bundle: short hash of the active bundle; None until one is chosen.
        counts: number of events by name since the start.

    Raises:
        SinkRefused: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._diagnostics = Diagnostics()
        self.counts: Counter[str] = Counter()
        self.bundle: str | None = None
        self._journal = Journal(folder, SEGMENT_BYTES, TOTAL_BYTES)
        self._lock = Lock()

    def __call__(self, kind: str, detail: str) -> None:
        self._diagnostics.say(f"{kind}: {printable(detail)}")
        record = {
            "event": kind,
            "detail": detail,
            "bundle": self.bundle,
            "boot": boot_id(),
            "at_s": round(since_boot(), 3),
            "unix": round(time.time(), 3),
        }
        with self._lock:
            self.counts[kind] += 1
            self._journal.append(record)

    @property
    def dropped_lines(self) -> int:
        """Number of lines dropped from standard error; the journal has all lines."""
        return self._diagnostics.dropped

    def flush(self) -> None:
        with self._lock:
            self._journal.flush()

    def close(self) -> None:
        self._diagnostics.close()
        with self._lock:
            self._journal.close()
