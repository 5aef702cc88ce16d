"""Whether a recording is shorter than its container says: what a power cut or an unfinished copy leaves.

Durations are estimates. Positions and sizes that a container states are not.
"""

from __future__ import annotations

from pathlib import Path

from av.container import InputContainer
from av.video.stream import VideoStream

HEAD_BYTES = 4096
EBML_HEADER, SEGMENT, VOID = 0x1A45DFA3, 0x18538067, 0xEC
"""Element ids of Matroska and WebM (RFC 8794, RFC 9559)."""
TS_PACKETS = (188, 192, 204)
"""Bytes of a packet of an MPEG transport stream: as it is, with a time stamp, with error correction."""


def is_cut_off(path: Path, container: InputContainer, stream: VideoStream) -> bool:
    """Whether the file ends before its container does: a packet that the index names, the segment of Matroska, the first RIFF chunk
    of AVI, or the last packet of a transport stream lies beyond the end of the file."""
    size = path.stat().st_size
    indexed = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    if indexed > size:
        return True
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if "matroska" in container.format.name:
        end = segment_end(head)
        return end is not None and end > size
    if container.format.name == "avi":
        return int.from_bytes(head[4:8], "little") + 8 > size
    return container.format.name == "mpegts" and all(size % packet for packet in TS_PACKETS)


def segment_end(head: bytes) -> int | None:
    """Where the segment of a Matroska file ends, in bytes from the start of the file.

    Args:
        head: the first bytes of the file.

    Returns:
        None where the file does not say, as in a recording that was written to a pipe.
    """
    at = 0
    while at < len(head):
        element, at = _number(head, at, keep_marker=True)
        length, at = _number(head, at, keep_marker=False)
        if element is None or length is None:
            return None
        if element == SEGMENT:
            return at + length
        if element not in (EBML_HEADER, VOID):
            return None
        at += length
    return None


def _number(head: bytes, at: int, keep_marker: bool) -> tuple[int | None, int]:
    """An EBML number of variable length, and where it ends; None for one that is unknown or not there."""
    first = head[at] if at < len(head) else 0
    length = 9 - first.bit_length()
    raw = head[at : at + length]
    if not first or len(raw) < length:
        return None, at + 1
    value = int.from_bytes(raw, "big")
    data_bits = (1 << 7 * length) - 1
    if keep_marker:
        return value, at + length
    return (None if value & data_bits == data_bits else value & data_bits), at + length
