"""CCSDS space packets (133.0-B-2, extra `ccsds`): what one packet is, products of several, and what the ground makes of them.

A product, such as a picture, is cut into segments: sequence flags say first, middle, last (4.1.3.4.2). The data of each: u32 number
of the frame, u16 segment, u16 segments, u8 kind, u8 confidence in 1/255, then bytes of the picture; behind it a CRC-16.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from spatialnet_edge.core.errors import MissingExtra

CRC_BYTES = 2
SEQUENCE_MODULUS = 1 << 14
"""The sequence count has 14 bits (4.1.3.4.3)."""
HEAD = struct.Struct(">IHHBB")
PACKET_HEADER = 6
SEGMENT = 1024
KINDS = {"keep": 1, "thumbnail": 2}


def crc_and_ccsds() -> tuple[Callable[[bytes], int], Any]:
    """CRC-16 as CCSDS has it (CCITT polynomial, preset to ones: 132.0-B-3, 4.1.6), and spacepackets' CCSDS module.

    Raises:
        MissingExtra: `spacepackets` or `fastcrc` is not installed.
    """
    try:
        fastcrc: Any = import_module("fastcrc")
        ccsds: Any = import_module("spacepackets.ccsds")
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "ccsds") from error
    return fastcrc.crc16.ibm_3740, ccsds


def packer(apid: int) -> Callable[..., bytes]:
    """A function from user data, sequence count and sequence flags (unsegmented by default) to a telemetry packet with its CRC.

    Raises:
        MissingExtra: as `crc_and_ccsds`.
    """
    crc16, ccsds = crc_and_ccsds()

    def make(data: bytes, sequence: int, flags: Any = ccsds.SequenceFlags.UNSEGMENTED) -> bytes:
        length = len(data) + CRC_BYTES - 1  # the field holds one less than the bytes (4.1.3.5.2)
        header = ccsds.SpacePacketHeader(ccsds.PacketType.TM, apid, sequence, length, seq_flags=flags)
        body = bytes(header.pack()) + data
        return body + crc16(body).to_bytes(CRC_BYTES, "big")

    return make


def packets_of(content: bytes, seq: int, kind: str, confidence: float, apid: int, sequence: int) -> list[bytes]:
    """One product as packets with rising sequence counts."""
    parts = [content[start : start + SEGMENT] for start in range(0, len(content), SEGMENT)] or [b""]
    make, (_, ccsds) = packer(apid), crc_and_ccsds()
    return [
        make(
            HEAD.pack(seq % 2**32, index, len(parts), KINDS[kind], round(confidence * 255)) + part,
            (sequence + index) % SEQUENCE_MODULUS,
            flags(ccsds.SequenceFlags, index, len(parts)),
        )
        for index, part in enumerate(parts)
    ]


def flags(names: Any, index: int, count: int) -> Any:
    """The sequence flags of one segment, of spacepackets' `SequenceFlags`."""
    if count == 1:
        return names.UNSEGMENTED
    if index == 0:
        return names.FIRST_SEGMENT
    return names.LAST_SEGMENT if index == count - 1 else names.CONTINUATION_SEGMENT


@dataclass(slots=True)
class Received:
    """What the ground has after a pass.

    Attributes:
        products: number of the frame to kind, confidence and picture, for those that are whole.
        incomplete: number of the frame to the segments that are missing.
        lost: packets that the sequence counts say there were; damaged: packets whose CRC does not fit.
    """

    products: dict[int, tuple[str, float, bytes]] = field(default_factory=dict[int, tuple[str, float, bytes]])
    incomplete: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    packets: int = 0
    lost: int = 0
    damaged: int = 0


def receive(stream: Iterable[bytes]) -> Received:
    """Put together what arrived, packet by packet, and say what did not."""
    crc16, ccsds = crc_and_ccsds()
    found = Received()
    parts: dict[int, dict[int, bytes]] = {}
    about: dict[int, tuple[int, str, float]] = {}
    names = {number: name for name, number in KINDS.items()}
    last: int | None = None
    for raw in stream:
        found.packets += 1
        if len(raw) < PACKET_HEADER + HEAD.size + CRC_BYTES or crc16(raw[:-CRC_BYTES]) != int.from_bytes(
            raw[-CRC_BYTES:], "big"
        ):
            found.damaged += 1
            continue
        header = ccsds.SpacePacketHeader.unpack(raw[:PACKET_HEADER])
        if last is not None:
            found.lost += (header.seq_count - last - 1) % SEQUENCE_MODULUS
        last = header.seq_count
        seq, index, count, kind, confidence = HEAD.unpack_from(raw, PACKET_HEADER)
        parts.setdefault(seq, {})[index] = raw[PACKET_HEADER + HEAD.size : -CRC_BYTES]
        about[seq] = (count, names.get(kind, "unknown"), confidence / 255)
    for seq, (count, kind, confidence) in about.items():
        missing = [index for index in range(count) if index not in parts[seq]]
        if missing:
            found.incomplete[seq] = missing
        else:
            found.products[seq] = (kind, confidence, b"".join(parts[seq][index] for index in range(count)))
    found.lost -= found.damaged  # a damaged packet was counted as a gap
    return found


def split(recording: bytes) -> Iterator[bytes]:
    """Packets of a recording, one after the other, by the lengths in their headers."""
    position = 0
    while position + PACKET_HEADER <= len(recording):
        length = PACKET_HEADER + int.from_bytes(recording[position + 4 : position + 6], "big") + 1
        yield recording[position : position + length]
        position += length
