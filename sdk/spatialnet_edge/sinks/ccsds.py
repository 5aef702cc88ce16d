"""CCSDS space packets (133.0-B-2, extra `ccsds`): encoding, products of several packets, and the ground receiver.

A product, such as a picture, is cut into segments: the sequence flags mark first, middle and last (4.1.3.4.2). The data of
each segment: u32 frame number, u16 segment, u16 segments, u8 kind, u8 confidence in 1/255, u8[8] bundle (the first bytes of
its sha256; zeros if unknown), then bytes of the picture, then a CRC-16.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from spatialnet_edge.core.errors import MissingExtra
from spatialnet_edge.sinks.record_codec import bundle_bytes, bundle_name

CRC_BYTES = 2
SEQUENCE_MODULUS = 1 << 14
"""The sequence count has 14 bits (4.1.3.4.3)."""
HEAD = struct.Struct(">IHHBB8s")
PACKET_HEADER = 6
SEGMENT = 1024
KINDS = {"keep": 1, "thumbnail": 2}


def crc_and_ccsds() -> tuple[Callable[[bytes], int], Any]:
    """The CRC-16 of CCSDS (CCITT polynomial, preset to ones: 132.0-B-3, 4.1.6), and spacepackets' CCSDS module.

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
        length = len(data) + CRC_BYTES - 1  # the field has the number of bytes minus one (4.1.3.5.2)
        header = ccsds.SpacePacketHeader(ccsds.PacketType.TM, apid, sequence, length, seq_flags=flags)
        body = bytes(header.pack()) + data
        return body + crc16(body).to_bytes(CRC_BYTES, "big")

    return make


def packets_of(
    content: bytes, seq: int, kind: str, confidence: float, apid: int, sequence: int, bundle: str | None = None
) -> list[bytes]:
    """Encode one product as packets with increasing sequence counts.

    Args:
        kind: one of `KINDS`.
        sequence: count of the first packet.
        bundle: short hash of the bundle that classified the picture.
    """
    parts = [content[start : start + SEGMENT] for start in range(0, len(content), SEGMENT)] or [b""]
    make, (_, ccsds) = packer(apid), crc_and_ccsds()
    named = bundle_bytes(bundle)
    return [
        make(
            HEAD.pack(seq % 2**32, index, len(parts), KINDS[kind], round(confidence * 255), named) + part,
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


@dataclass(frozen=True, slots=True)
class Product:
    """A completely received picture.

    Attributes:
        kind: one of `KINDS`, or `unknown`.
        confidence: 0 to 1.
        bundle: short hash of the bundle that classified it; None if the packets have none.
    """

    kind: str
    confidence: float
    content: bytes
    bundle: str | None


@dataclass(slots=True)
class Received:
    """Content of a received pass.

    Attributes:
        products: frame number to product, for complete ones.
        incomplete: frame number to number of missing segments.
        lost: missing packets, from gaps in the sequence counts.
        damaged: packets with a wrong CRC.
        contradictory: inconsistent packets with a correct CRC: a segment after the last one, or another product for the same
            frame number. The first product of a number is kept.
    """

    products: dict[int, Product] = field(default_factory=dict[int, Product])
    incomplete: dict[int, int] = field(default_factory=dict[int, int])
    packets: int = 0
    lost: int = 0
    damaged: int = 0
    contradictory: int = 0


@dataclass(frozen=True, slots=True)
class Segments:
    """The received segments of one product, by index; `head` has the fields that must be equal in all of them."""

    head: tuple[int, int, int, bytes]
    parts: dict[int, bytes]

    @property
    def missing(self) -> int:
        return self.head[0] - len(self.parts)

    def product(self) -> Product:
        """Assemble the product. Raises KeyError if segments are missing."""
        count, kind, confidence, bundle = self.head
        name = next((name for name, number in KINDS.items() if number == kind), "unknown")
        return Product(name, confidence / 255, b"".join(self.parts[index] for index in range(count)), bundle_name(bundle))


def receive(stream: Iterable[bytes]) -> Received:
    """Assemble the received packets and report the losses.

    Time and memory are proportional to the received bytes, whatever the packets claim: missing segments are counted, not
        listed.
    """
    crc16, ccsds = crc_and_ccsds()
    found = Received()
    begun: dict[int, Segments] = {}
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
        seq, index, *head = HEAD.unpack_from(raw, PACKET_HEADER)
        product = begun.setdefault(seq, Segments(tuple(head), {}))
        if product.head != tuple(head) or index >= product.head[0]:
            found.contradictory += 1
            continue
        product.parts.setdefault(index, raw[PACKET_HEADER + HEAD.size : -CRC_BYTES])
    for seq, product in begun.items():
        if product.missing:
            found.incomplete[seq] = product.missing
        elif product.parts:
            found.products[seq] = product.product()
    found.lost -= min(found.lost, found.damaged)  # a damaged packet was already counted as a gap
    return found


def split(recording: bytes) -> Iterator[bytes]:
    """Split a recording into packets by the lengths in their headers."""
    position = 0
    while position + PACKET_HEADER <= len(recording):
        length = PACKET_HEADER + int.from_bytes(recording[position + 4 : position + 6], "big") + 1
        yield recording[position : position + length]
        position += length
