"""Records as datagrams: bare (`udp:`) or inside CCSDS space packets (`ccsds+udp:`)."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import final

from spatialnet_edge.errors import SinkError, UsageError
from spatialnet_edge.results import FrameResult
from spatialnet_edge.sinks.budget import Budget, number, parse_peer
from spatialnet_edge.sinks.space_packets import SEQUENCE_MODULUS, packer
from spatialnet_edge.wire import pack

DEFAULT_PORT, CCSDS_PORT = 14600, 14601
MOST_APID = 0x7FF - 1


@final
class UdpSink:
    """`udp://HOST:PORT?budget=BYTES_A_SECOND`: one record a datagram; see `wire.py`.

    A datagram that nobody takes is lost, as datagrams are; what the budget refused is counted in `over_budget`.
    """

    wants_pixels = False

    def __init__(self, rest: str) -> None:
        host, port, _, options = parse_peer("udp", rest, DEFAULT_PORT, {"budget": "0"})
        self._budget = Budget(number("udp", options, "budget"))
        self._socket = connected(host, port)

    @property
    def over_budget(self) -> int:
        return self._budget.refused

    def write(self, result: FrameResult) -> None:
        record = pack(result)
        if self._budget.allows(len(record)):
            send(self._socket, record)

    def close(self) -> None:
        self._socket.close()


@final
class CcsdsUdpSink:
    """`ccsds+udp://HOST:PORT?apid=0x2a&budget=BYTES_A_SECOND`: telemetry space packets (CCSDS 133.0-B-2).

    The packet's data field is one record (`wire.py`) followed by a CRC-16 over the whole packet (CCSDS 132.0-B-3, 4.1.6: CCITT
    polynomial, preset to ones). The sequence count rises with every packet that is made, sent or not: the ground sees how many are
    missing.

    Args:
        first: sequence count to begin with, for a program that goes on where it stopped.

    Raises:
        MissingExtra: `spacepackets` or `fastcrc` is not installed.
    """

    wants_pixels = False

    def __init__(self, rest: str, first: int = 0) -> None:
        host, port, _, options = parse_peer("ccsds+udp", rest, CCSDS_PORT, {"budget": "0", "apid": "0x2a"})
        apid = int(number("ccsds+udp", options, "apid"))
        if apid > MOST_APID:
            raise UsageError(f"ccsds+udp: apid={options['apid']}: at most {MOST_APID:#x}, since 0x7ff is idle")
        self._budget = Budget(number("ccsds+udp", options, "budget"))
        self._packer = packer(apid)
        self._socket = connected(host, port)
        self.sequence = first % SEQUENCE_MODULUS

    @property
    def over_budget(self) -> int:
        return self._budget.refused

    def write(self, result: FrameResult) -> None:
        packet = self._packer(pack(result), self.sequence)
        self.sequence = (self.sequence + 1) % SEQUENCE_MODULUS
        if self._budget.allows(len(packet)):
            send(self._socket, packet)

    def close(self) -> None:
        self._socket.close()


def connected(host: str, port: int) -> socket.socket:
    """A datagram socket to a peer, whatever family its name has.

    Raises:
        SinkError: the name is unknown.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        found = socket.socket(family, kind, protocol)
        found.connect(address)
    except OSError as error:
        raise SinkError(
            f"{host}:{port}: cannot be reached: {error.strerror or error}; check the name and the network"
        ) from error
    return found


def send(peer: socket.socket, content: bytes) -> None:
    with suppress(ConnectionRefusedError):  # a peer that is not there yet says so by ICMP; it may come
        peer.send(content)
