"""Records as datagrams: bare (`udp:`) or inside CCSDS space packets (`ccsds+udp:`)."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import final

from spatialnet_edge.core.errors import SinkError, UsageError, first_line
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.sinks.budget import Budget, number, parse_peer
from spatialnet_edge.sinks.ccsds import SEQUENCE_MODULUS, packer
from spatialnet_edge.sinks.record_codec import pack

DEFAULT_PORT, CCSDS_PORT = 14600, 14601
MOST_APID = 0x7FF - 1


def parse_udp(rest: str) -> tuple[str, int, float]:
    """Host, port and budget. Raises UsageError."""
    host, port, _, options = parse_peer("udp", rest, DEFAULT_PORT, {"budget": "0"})
    return host, port, number("udp", options, "budget")


def parse_ccsds(rest: str) -> tuple[str, int, float, int]:
    """Host, port, budget and application process identifier. Raises UsageError."""
    host, port, _, options = parse_peer("ccsds+udp", rest, CCSDS_PORT, {"budget": "0", "apid": "0x2a"})
    apid = int(number("ccsds+udp", options, "apid"))
    if apid > MOST_APID:
        raise UsageError(f"ccsds+udp: apid={options['apid']}: at most {MOST_APID:#x}, since 0x7ff is idle")
    return host, port, number("ccsds+udp", options, "budget"), apid


class DatagramSink:
    """What both kinds share: a socket that is made anew when the link was down, since we may have another address by then, and a
    budget.

    Attributes:
        lost: datagrams that could not be sent. One that nobody takes at the other end is lost unseen, as datagrams are.
        report: told `sink_failed` when they begin to be lost, and `sink_back` when the first goes out again.

    Raises:
        SinkError: the peer's name is unknown.
    """

    wants_pixels = False

    def __init__(self, host: str, port: int, bytes_per_second: float) -> None:
        self.lost = 0
        self.report: Callable[[str, str], None] | None = None
        self._where = f"{host}:{port}"
        self._host, self._port = host, port
        self._budget = Budget(bytes_per_second)
        self._socket: socket.socket | None = connected(host, port)
        self._down = False

    @property
    def over_budget(self) -> int:
        return self._budget.refused

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, content: bytes) -> None:
        if not self._budget.allows(len(content)):
            return
        try:
            if self._socket is None:
                self._socket = connected(self._host, self._port)
            with suppress(ConnectionRefusedError):  # a peer that is not there yet says so by ICMP; it may come
                self._socket.send(content)
        except (OSError, SinkError) as error:
            self.lost += 1
            self.close()
            self._tell(True, f"{self._where}: {first_line(error)}; tried again with every record")
        else:
            self._tell(False, f"{self._where}: reached again; {self.lost} records lost so far")

    def _tell(self, down: bool, detail: str) -> None:
        """Of a change alone."""
        if down != self._down and self.report is not None:
            self.report("sink_failed" if down else "sink_back", detail)
        self._down = down


@final
class UdpSink(DatagramSink):
    """`udp://HOST:PORT?budget=BYTES_A_SECOND`: one record a datagram; see `wire.py`."""

    def __init__(self, rest: str) -> None:
        super().__init__(*parse_udp(rest))

    def write(self, result: FrameResult) -> None:
        self._send(pack(result))


@final
class CcsdsUdpSink(DatagramSink):
    """`ccsds+udp://HOST:PORT?apid=0x2a&budget=BYTES_A_SECOND`: telemetry space packets (CCSDS 133.0-B-2).

    The packet's data field is one record (`wire.py`) followed by a CRC-16 over the whole packet (CCSDS 132.0-B-3, 4.1.6: CCITT
    polynomial, preset to ones). The sequence count rises with every packet that is made, sent or not, and whatever happens to the
    link: the ground sees how many are missing.

    Args:
        first: sequence count to begin with, for a program that goes on where it stopped.

    Raises:
        MissingExtra: `spacepackets` or `fastcrc` is not installed.
    """

    def __init__(self, rest: str, first: int = 0) -> None:
        host, port, bytes_per_second, apid = parse_ccsds(rest)
        self._packer = packer(apid)
        super().__init__(host, port, bytes_per_second)
        self.sequence = first % SEQUENCE_MODULUS

    def write(self, result: FrameResult) -> None:
        packet = self._packer(pack(result), self.sequence)
        self.sequence = (self.sequence + 1) % SEQUENCE_MODULUS
        self._send(packet)


def connected(host: str, port: int) -> socket.socket:
    """A datagram socket to a peer, whatever family its name has.

    Raises:
        SinkError: the name is unknown, or no network leads there.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.connect(address)
        except OSError:
            found.close()
            raise
    except OSError as error:
        raise SinkError(
            f"{host}:{port}: cannot be reached: {error.strerror or error}; check the name and the network"
        ) from error
    return found
