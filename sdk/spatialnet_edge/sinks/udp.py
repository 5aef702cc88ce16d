"""UDP sinks: binary records as plain datagrams (`udp:`) or in CCSDS space packets (`ccsds+udp:`)."""

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
    """Parse host, port and budget. Raises UsageError."""
    host, port, _, options = parse_peer("udp", rest, DEFAULT_PORT, {"budget": "0"})
    return host, port, number("udp", options, "budget")


def parse_ccsds(rest: str) -> tuple[str, int, float, int]:
    """Parse host, port, budget and application process identifier. Raises UsageError."""
    host, port, _, options = parse_peer("ccsds+udp", rest, CCSDS_PORT, {"budget": "0", "apid": "0x2a"})
    apid = int(number("ccsds+udp", options, "apid"))
    if apid > MOST_APID:
        raise UsageError(f"ccsds+udp: apid={options['apid']}: at most {MOST_APID:#x}; 0x7ff means idle")
    return host, port, number("ccsds+udp", options, "budget"), apid


class DatagramSink:
    """Base of both sinks: a socket and a byte budget. The socket is recreated after the link was down, because our address may
    have changed.

    Attributes:
        lost: datagrams that could not be sent. A datagram that does not arrive is not counted.
        report: called with `sink_failed` when sending starts to fail, and with `sink_back` when it works again.

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
            with suppress(ConnectionRefusedError):  # ICMP reports a peer that is not listening; it may start later
                self._socket.send(content)
        except (OSError, SinkError) as error:
            self.lost += 1
            self.close()
            self._tell(True, f"{self._where}: {first_line(error)}; retried with every record")
        else:
            self._tell(False, f"{self._where}: works again; {self.lost} records lost so far")

    def _tell(self, down: bool, detail: str) -> None:
        """Report only changes of the state."""
        if down != self._down and self.report is not None:
            self.report("sink_failed" if down else "sink_back", detail)
        self._down = down


@final
class UdpSink(DatagramSink):
    """`udp://HOST:PORT?budget=BYTES_A_SECOND`: one record per datagram; see `record_codec.py`."""

    def __init__(self, rest: str) -> None:
        super().__init__(*parse_udp(rest))

    def write(self, result: FrameResult) -> None:
        self._send(pack(result))


@final
class CcsdsUdpSink(DatagramSink):
    """`ccsds+udp://HOST:PORT?apid=0x2a&budget=BYTES_A_SECOND`: telemetry space packets (CCSDS 133.0-B-2).

    The packet's data field is one record (`record_codec.py`) followed by a CRC-16 over the complete packet (CCSDS 132.0-B-3,
    4.1.6: CCITT polynomial, preset to ones). The sequence count increases with every packet, sent or not, so that the ground
    can count missing packets.

    Args:
        first: first sequence count, for a program that continues an earlier sequence.

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
    """A datagram socket to a peer, for any address family.

    Raises:
        SinkError: the name is unknown, or there is no route.
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
