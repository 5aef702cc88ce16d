"""What happened: on standard error for the supervisor's log, in a journal for the ground, and counted."""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import final

from spatialnet_edge.core.clock import boot_id, since_boot
from spatialnet_edge.sinks.journal import Journal

SEGMENT_BYTES, TOTAL_BYTES = 1 << 20, 16 << 20


@final
class Events:
    """Called with an event's name and one line about it, from any thread.

    Attributes:
        bundle: short hash of the bundle that flies; None until one was chosen.

    Raises:
        SinkRefused: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.bundle: str | None = None
        self._journal = Journal(folder, SEGMENT_BYTES, TOTAL_BYTES)
        self._lock = Lock()

    def __call__(self, kind: str, detail: str) -> None:
        with suppress(OSError):  # whoever listens may be gone
            print(f"{kind}: {detail}", file=sys.stderr, flush=True)
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

    def flush(self) -> None:
        with self._lock:
            self._journal.flush()

    def close(self) -> None:
        with self._lock:
            self._journal.close()
