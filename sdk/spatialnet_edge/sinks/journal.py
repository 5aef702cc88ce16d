"""Journal: a power-safe log of lines in segments, each line with its CRC-32, written to disk within a second.

    1c291ca3 {"seq":0,"predictions":{...}}

Eight hexadecimal digits are the CRC-32 (as in zlib) of the JSON text after the space. A truncated or changed line does
not match its CRC, and only that line is lost. Segments are `000000001.log`, `000000002.log` …; the oldest are deleted when the
folder exceeds its limit or the disk is full, except those pinned by a file such as `000000001.log.pin`. Links, devices and
folders with a segment's name are never opened. Only one journal at a time may use a folder, by a lock on the folder
(flock(2)).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import msgspec

from spatialnet_edge.core.atomic_io import DATA_MODE, FULL, sync_folder
from spatialnet_edge.core.errors import SinkRefused
from spatialnet_edge.sinks.journal_reader import PIN, drop_torn_tail, last_number, name_of, segments, to_line

SEGMENT_BYTES = 16 << 20
TOTAL_BYTES = 1 << 30
LEAST_SEGMENTS = 4
"""Largest share of the size limit per segment: the limit can be kept only by deleting whole segments."""
BLOCK_BYTES = 4096
"""Disk block size: a file occupies whole blocks (ext4, F2FS and UBIFS)."""
SYNC_S = 1.0

Write = Callable[[int, memoryview], int]
encode_json = msgspec.json.Encoder().encode


def on_disk(size: int) -> int:
    """Bytes that a file of this size occupies on disk."""
    return -(-max(size, 1) // BLOCK_BYTES) * BLOCK_BYTES


@final
class Journal:
    """Appends records to segments in a folder. It continues the last segment if that has room and is not pinned.

    Args:
        segment_bytes: of one segment, at most a quarter of `total_bytes`.
        total_bytes: of all segments, in whole disk blocks; the oldest unpinned ones are deleted first.
        report: called with `disk_full` and the reason when records are lost, and with `disk_free` when writing works again.
        write: `os.write`, or a function that simulates a failing disk, for tests.

    Attributes:
        lost: number of records that could not be written, or that the disk lost later.

    Raises:
        SinkRefused: the folder cannot be written (with its path and our user id), or another journal uses it. Not raised for a
            full disk, which may have room later.
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
        self._segment_bytes = min(segment_bytes, total_bytes // LEAST_SEGMENTS)
        self._total_bytes = total_bytes
        self.report = report
        self._write = write
        self._full = False
        self._lock = self._descriptor = -1
        self._number = self._size = self._kept = 0
        self._unsynced = 0
        self._synced = time.monotonic()
        try:
            self._open_folder()
        except OSError as error:
            self._unlock()
            if error.errno in FULL:
                return
            raise SinkRefused(
                f"{folder}: cannot be written by user {os.geteuid()}: {error.strerror}; "
                f"give it to this user or choose another folder"
            ) from error

    def append(self, record: Mapping[str, Any]) -> bool:
        """Write a record; False if the disk is full even after deleting old segments."""
        line = to_line(encode_json(record))
        try:
            while not self._place(line):
                if not self._drop_oldest():
                    return self._lose("no space left, and no segment that may be deleted")
        except OSError as error:
            return self._lose(f"{error.strerror}")
        except SinkRefused as error:
            return self._lose(str(error))
        if self._full:
            if not self._sync():
                return False
            self._full = False
            self._tell("disk_free", f"{self._folder}: records are written again; {self.lost} were lost")
        self.flush()
        return True

    def flush(self) -> None:
        """Sync to disk if a second has passed since the last sync."""
        if self._unsynced and time.monotonic() - self._synced >= SYNC_S:
            self._sync()

    def close(self) -> None:
        """Sync everything to disk and release the folder."""
        self._close_segment()
        self._unlock()

    def _open_folder(self) -> None:
        """Create and lock the folder, and open the segment to continue."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SinkRefused(f"{self._folder}: another log uses this folder; use a different folder for each log") from error
        present = segments(self._folder)
        self._number = last_number(self._folder)
        self._kept = sum(on_disk(path.stat().st_size) for path in present)
        if present and int(present[-1].stem) == self._number:
            self._go_on_with(present[-1])
        if self._descriptor < 0:
            self._next_segment()

    def _go_on_with(self, path: Path) -> None:
        before = path.stat().st_size
        if not drop_torn_tail(path):
            return
        self._size = path.stat().st_size
        self._kept -= on_disk(before) - on_disk(self._size)
        if self._size < self._segment_bytes and not path.with_name(path.name + PIN).exists():
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)

    def _place(self, line: bytes) -> bool:
        """Write to this segment, or to a new one if it is full; False if the disk is full."""
        if self._lock < 0:
            self._open_folder()
        if (
            self._descriptor < 0 or (self._size and self._size + len(line) > self._segment_bytes)
        ) and not self._next_segment():
            return False
        more = on_disk(self._size + len(line)) - on_disk(self._size)
        self._keep_below(self._total_bytes - more)
        return self._write_line(line)

    def _write_line(self, line: bytes) -> bool:
        """Write a line completely or not at all; False if the disk is full."""
        remaining = memoryview(line)
        try:
            while remaining:
                remaining = remaining[self._write(self._descriptor, remaining) :]
        except OSError as error:
            os.ftruncate(self._descriptor, self._size)
            if error.errno in FULL:
                return False
            raise
        self._kept += on_disk(self._size + len(line)) - on_disk(self._size)
        self._size += len(line)
        self._unsynced += 1
        return True

    def _next_segment(self) -> bool:
        """Open the next segment; False if the disk is full, and the current segment stays open."""
        number = self._number + 1
        path = self._folder / name_of(number)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, DATA_MODE)
            os.fchmod(descriptor, DATA_MODE)
            self._close_segment()
            self._number, self._descriptor, self._size = number, descriptor, 0
            self._kept += on_disk(0)
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
                self._kept -= on_disk(path.stat().st_size)
                path.unlink()
                return True
        return False

    def _close_segment(self) -> None:
        if self._descriptor >= 0:
            self._sync()
            os.close(self._descriptor)
            self._descriptor = -1

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _sync(self) -> bool:
        """Sync the segment. Records since the last sync are lost if it fails: the kernel reports a write error only once
        (fsync(2))."""
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
            self._tell("disk_full", f"{self._folder}: {why}; records are lost until this is fixed; classification continues")
        return False

    def _tell(self, kind: str, detail: str) -> None:
        if self.report is not None:
            self.report(kind, detail)
