"""Read the segments of a journal (see `journal.py`), damaged or not, in pieces of bounded size."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SUFFIX, PIN = ".log", ".pin"
CRC_DIGITS = 8
PIECE_BYTES = 4 << 20
"""Bytes that are read at once. A longer line counts as damaged."""


def to_line(text: bytes) -> bytes:
    """Encode one line of a segment."""
    return b"%08x %s\n" % (zlib.crc32(text), text)


@dataclass(frozen=True, slots=True)
class Reading:
    """Content of a segment or of a piece of it.

    Attributes:
        records: JSON texts with a correct CRC, in order.
        damaged: number of lines with a wrong CRC.
        whole: bytes up to the end of the last valid line; the rest is an incomplete tail.
    """

    records: tuple[bytes, ...]
    damaged: int
    whole: int


def read_segment(content: bytes) -> Reading:
    """Parse a segment, damaged or not."""
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


def name_of(number: int) -> str:
    """The file name of a segment."""
    return f"{number:09d}{SUFFIX}"


def last_number(folder: Path) -> int:
    """The highest segment number in the folder, of any kind of file; 0 if there is none."""
    return max((int(path.stem) for path in folder.glob(f"*{SUFFIX}") if is_numbered(path)), default=0)


def segments(folder: Path) -> list[Path]:
    """The segments of a journal, oldest first: only regular files, no links."""
    found = [path for path in folder.glob(f"*{SUFFIX}") if is_numbered(path) and is_plain_file(path)]
    return sorted(found, key=lambda path: int(path.stem))


def is_numbered(path: Path) -> bool:
    return path.stem.isascii() and path.stem.isdigit()


def is_plain_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def read_journal(folder: Path) -> Iterator[Reading]:
    """Every segment, oldest first, in pieces of `PIECE_BYTES`; add up their `damaged`."""
    for path in segments(folder):
        yield from read_pieces(path)


def read_pieces(path: Path) -> Iterator[Reading]:
    """One segment, in pieces that end with a line.

    Raises:
        OSError: it cannot be read, or is a link.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        rest, too_long = b"", 0
        while piece := file.read(PIECE_BYTES):
            end = piece.rfind(b"\n") + 1
            if not end:  # no line ends here: keep the beginning of the next line
                too_long = too_long or int(len(rest) + len(piece) > PIECE_BYTES)
                rest = b"" if too_long else rest + piece
                continue
            content = piece[piece.find(b"\n") + 1 : end] if too_long else rest + piece[:end]
            reading = read_segment(content)
            yield Reading(reading.records, reading.damaged + too_long, reading.whole)
            rest, too_long = piece[end:], 0
        if rest or too_long:
            yield Reading((), 1, 0)


def drop_torn_tail(path: Path) -> bool:
    """Truncate a segment after its last valid line. Reads at most `PIECE_BYTES` from the end.

    Returns:
        Whether the segment now ends with a complete line. A segment without a valid line in its last `PIECE_BYTES` is not
        changed.

    Raises:
        OSError: it cannot be changed, or is a link.
    """
    with open(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - PIECE_BYTES)
        file.seek(start)
        content = file.read(size - start)
        skipped = content.find(b"\n") + 1 if start else 0
        whole = read_segment(content[skipped:]).whole
        if not whole and start:
            return False
        if start + skipped + whole < size:
            file.truncate(start + skipped + whole)
            os.fsync(file.fileno())
    return True
