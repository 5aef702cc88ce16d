"""Log sink: results in a power-safe journal of limited size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import final
from urllib.parse import parse_qsl

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.sinks.journal import SEGMENT_BYTES, TOTAL_BYTES, Journal

MB = 1_000_000
LEAST_MB, MOST_MB = 0.01, 1e9


def parse_log(rest: str) -> tuple[Path, int, int]:
    """Parse the folder, the segment size and the total size in bytes.

    Raises:
        UsageError: an option is unknown, not a number, or out of range.
    """
    folder, _, query = rest.partition("?")
    limits = {"segment_mb": SEGMENT_BYTES / MB, "total_mb": TOTAL_BYTES / MB}
    try:
        for name, value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
            if name not in limits:
                raise ValueError(f"no option '{name}'")
            limits[name] = float(value)
            if not LEAST_MB <= limits[name] <= MOST_MB:
                raise ValueError(f"{name}={value}: expected {LEAST_MB:g} to {MOST_MB:g}")
    except ValueError as error:
        raise UsageError(f"log:{rest}: {error}; example: log:results?segment_mb=16&total_mb=1024") from error
    return Path(folder or "."), int(limits["segment_mb"] * MB), int(limits["total_mb"] * MB)


@final
class LogSink:
    """`log:FOLDER?segment_mb=16&total_mb=1024`; see `journal.py`. A segment takes at most a quarter of `total_mb`.

    Raises:
        UsageError: an option is unknown or not a number.
        SinkRefused: the folder cannot be written.
    """

    wants_pixels = False

    def __init__(self, rest: str) -> None:
        self.journal = Journal(*parse_log(rest))

    @property
    def lost(self) -> int:
        """Number of records that could not be written."""
        return self.journal.lost

    @property
    def report(self) -> Callable[[str, str], None] | None:
        """The function that receives events, such as a full disk."""
        return self.journal.report

    @report.setter
    def report(self, report: Callable[[str, str], None] | None) -> None:
        self.journal.report = report

    def write(self, result: FrameResult) -> None:
        self.journal.append(result.to_dict())

    def flush(self) -> None:
        """Sync to disk; called when there is nothing to write."""
        self.journal.flush()

    def close(self) -> None:
        self.journal.close()
