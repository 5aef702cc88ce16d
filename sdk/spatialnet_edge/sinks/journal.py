"""A log that a power cut cannot spoil: segments of lines, each with its CRC-32, on the disk within a second.

    1c291ca3 {"seq":0,"predictions":{...}}

Eight hexadecimal digits are the CRC-32 (as zlib has it) of the JSON text after the space. A line that was cut off or changed does
not fit its CRC, and it alone is lost. Segments are `000000001.log`, `000000002.log` …; the oldest go when the folder is over its
cap or the disk is full, except those that are pinned by a file beside them, `000000001.log.pin`.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import msgspec

from spatialnet_edge.core.atomic_io import FULL, sync_folder
from spatialnet_edge.core.errors import SinkRefused

SEGMENT_BYTES = 16 << 20
TOTAL_BYTES = 1 << 30
SYNC_S = 1.0
SUFFIX, PIN = ".log", ".pin"
CRC_DIGITS = 8

Write = Callable[[int, memoryview], int]
encode_json = msgspec.json.Encoder().encode


def to_line(text: bytes) -> bytes:
    """One line of a segment."""
    return b"%08x %s\n" % (zlib.crc32(text), text)


@dataclass(frozen=True, slots=True)
class Reading:
    """What is in a segment.

    Attributes:
        records: JSON texts whose CRC fits, in order.
        damaged: lines whose CRC does not.
        whole: bytes up to the end of the last good line; what is behind them is a torn tail.
    """

    records: tuple[bytes, ...]
    damaged: int
    whole: int


def read_segment(content: bytes) -> Reading:
    """Take a segment apart, whatever happened to it."""
    records: list[bytes] = []
    damaged = position = whole = 0
    while position < len(content):
        end = content.find(b"\n", position)
        line = content[position : end if end >= 0 else len(content)]
        position = end + 1 if end >= 0 else len(content)
        text = line[CRC_DIGITS + 1 :]
        if end >= 0 and line[:CRC_DIGITS] == b"%08x" % zlib.crc32(text) and line[CRC_DIGITS : CRC_DIGITS + 1] == b" ":
            records.append(text)
            whole = position
        else:
            damaged += 1
    return Reading(tuple(records), damaged, whole)


def segments(folder: Path) -> list[Path]:
    """The segments of a journal, oldest first."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.stem.isdigit())


def read_journal(folder: Path) -> Iterator[Reading]:
    """Every segment, oldest first."""
    for path in segments(folder):
        yield read_segment(path.read_bytes())


@final
class Journal:
    """Appends records to segments in a folder.

    Args:
        total_bytes: of all segments; the oldest unpinned ones go first.
        report: told `disk_full` when records begin to be lost, with the reason, and `disk_free` when they reach the disk again.
        write: `os.write`, or a disk that fails, for tests.

    Attributes:
        lost: records that could not be written, or that the disk failed on later.

    Raises:
        SinkRefused: the folder cannot be written, with its path and our user id. A full disk is no reason: it may have room later.
    """

    def __init__(
        self,
        folder: Path,
        segment_bytes: int = SEGMENT_BYTES,
        total_bytes: int = TOTAL_BYTES,
        report: Callable[[str, str], None] | None = None,
        write: Write = os.write,
    ) -> None:
        self.lost = 0
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._total_bytes = total_bytes
        self.report = report
        self._write = write
        self._full = False
        self._descriptor = -1
        self._size = 0
        self._unsynced = 0
        self._synced = time.monotonic()
        try:
            present = segments(folder)
            if present:
                _drop_torn_tail(present[-1])
            self._number = int(present[-1].stem) if present else 0
            self._kept = sum(path.stat().st_size for path in present)
            self._next_segment()
        except OSError as error:
            raise SinkRefused(
                f"{folder}: cannot be written by user {os.geteuid()}: {error.strerror}; "
                f"give it to this user or choose another folder"
            ) from error

    def append(self, record: Mapping[str, Any]) -> bool:
        """Write a record; False when the disk did not take it, even after old segments made room."""
        line = to_line(encode_json(record))
        try:
            while not self._place(line):
                if not self._drop_oldest():
                    return self._lose("no space left, and no segment that may go")
        except OSError as error:
            return self._lose(f"{error.strerror}")
        if self._full:
            if not self._sync():
                return False
            self._full = False
            self._tell("disk_free", f"{self._folder}: records are written again; {self.lost} were lost")
        self.flush()
        return True

    def flush(self) -> None:
        """Bring what was written to the disk, if a second has passed since that was done last."""
        if self._unsynced and time.monotonic() - self._synced >= SYNC_S:
            self._sync()

    def close(self) -> None:
        """Bring everything to the disk."""
        if self._descriptor >= 0:
            self._sync()
            os.close(self._descriptor)
            self._descriptor = -1

    def _place(self, line: bytes) -> bool:
        """Into this segment, or a new one if it is full; False when the disk is."""
        if (
            self._descriptor < 0 or (self._size and self._size + len(line) > self._segment_bytes)
        ) and not self._next_segment():
            return False
        self._keep_below(self._total_bytes - len(line))
        return self._write_line(line)

    def _write_line(self, line: bytes) -> bool:
        """Whole or not at all; False when the disk is full."""
        remaining = memoryview(line)
        try:
            while remaining:
                remaining = remaining[self._write(self._descriptor, remaining) :]
        except OSError as error:
            os.ftruncate(self._descriptor, self._size)
            if error.errno in FULL:
                return False
            raise
        self._size += len(line)
        self._kept += len(line)
        self._unsynced += 1
        return True

    def _next_segment(self) -> bool:
        """False when the disk is full; then what was open still is."""
        number = self._number + 1
        path = self._folder / f"{number:09d}{SUFFIX}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            self.close()
            self._number, self._descriptor, self._size = number, descriptor, 0
            sync_folder(self._folder)
        except OSError as error:
            if error.errno in FULL:
                return False
            raise
        return True

    def _keep_below(self, limit: int) -> None:
        while self._kept > limit and self._drop_oldest():
            pass

    def _drop_oldest(self) -> bool:
        for path in segments(self._folder):
            if int(path.stem) != self._number and not path.with_name(path.name + PIN).exists():
                self._kept -= path.stat().st_size
                path.unlink()
                return True
        return False

    def _sync(self) -> bool:
        """What the disk fails on is lost: the kernel says so once, and then no longer knows of it (fsync(2))."""
        unsynced, self._unsynced = self._unsynced, 0
        self._synced = time.monotonic()
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._lose(f"{error.strerror}", unsynced)
            return False
        return True

    def _lose(self, why: str, records: int = 1) -> bool:
        self.lost += records
        if not self._full:
            self._full = True
            self._tell("disk_full", f"{self._folder}: {why}; records are lost until that ends; classifying goes on")
        return False

    def _tell(self, kind: str, detail: str) -> None:
        if self.report is not None:
            self.report(kind, detail)


def _drop_torn_tail(path: Path) -> None:
    content = path.read_bytes()
    whole = read_segment(content).whole
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())
