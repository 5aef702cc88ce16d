"""MAVLink sink (extra `mavlink`): reports results as an onboard computer, and never sends commands."""

from __future__ import annotations

import struct
import time
from typing import Any, final

from spatialnet_edge.core.errors import SinkError, UsageError, first_line
from spatialnet_edge.core.predictions import Classification, MultilabelPrediction, RegressionPrediction
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.sinks.budget import Budget, integer, number, options_of
from spatialnet_edge.sinks.record_codec import Record, pack, unpack
from spatialnet_edge.sources.mavlink_pose import load_mavutil
from spatialnet_edge.sources.mavlink_signing import SIGNATURE_BYTES, SignedLink, read_signing_key
from spatialnet_edge.sources.pose import CONNECTION

ALLOWED = frozenset({"HEARTBEAT", "NAMED_VALUE_FLOAT", "STATUSTEXT", "TUNNEL"})
"""Allow-list of messages. All others, such as commands, are refused at the point of sending."""
HEARTBEAT_S = 1.0
NAME_LENGTH, TEXT_LENGTH, TUNNEL_LENGTH = 10, 50, 128
TUNNEL_TYPE = 0x534F
"""TUNNEL payload type of record parts; common.xml does not assign it (MAV_TUNNEL_PAYLOAD_TYPE). Earlier versions sent complete
records of at most 128 bytes as type 0x534E."""
PART = struct.Struct("<HBB")
"""Header of each part: frame number modulo 65,536, index of this part, number of parts."""
PART_LENGTH = TUNNEL_LENGTH - PART.size
TUNNEL_OVERHEAD = 12 + 5
"""Overhead of a MAVLink 2 packet with TUNNEL in bytes, without a signature."""
OPTIONS = {"budget": "0", "system": "1", "baud": "57600", "text": "land_use", "key_file": ""}


def parse_mavlink(rest: str) -> tuple[str, dict[str, str]]:
    """Parse the connection and the options.

    Raises:
        UsageError: no connection, an unknown or out-of-range option, or a key that cannot be read.
    """
    connection, _, query = rest.partition("?")
    if not CONNECTION.match(connection):
        raise UsageError(f"mavlink: no connection '{connection}'; example: mavlink:udpout:HOST:14550")
    options = options_of(f"mavlink:{connection}", query, OPTIONS)
    number("mavlink", options, "budget")
    integer("mavlink", options, "system", 1, 255)
    integer("mavlink", options, "baud", 1200, 12_500_000)
    if options["key_file"]:
        read_signing_key(options["key_file"])
    return connection, options


def split_record(record: bytes, seq: int) -> list[bytes]:
    """Split a record into TUNNEL payloads of at most 128 bytes, each beginning with a `PART` header. The shipped models'
    records need two."""
    pieces = [record[start : start + PART_LENGTH] for start in range(0, len(record), PART_LENGTH)]
    return [PART.pack(seq % 2**16, index, len(pieces)) + piece for index, piece in enumerate(pieces)]


@final
class TunnelReader:
    """Joins records from TUNNEL payloads, on the ground or on a companion computer.

    An incomplete record is dropped when the first part of another frame arrives.
    """

    def __init__(self) -> None:
        self._frame = (-1, -1)
        self._parts: dict[int, bytes] = {}

    def feed(self, payload: bytes) -> Record | None:
        """Add one payload.

        Returns:
            The completed record, or None.

        Raises:
            ValueError: not a part of a record, or the parts do not form a valid record.
        """
        if len(payload) < PART.size:
            raise ValueError(f"{len(payload)} bytes: not a part of a record")
        number, index, count = PART.unpack_from(payload)
        if index >= count:
            raise ValueError(f"part {index} of {count}")
        if self._frame != (number, count):
            self._frame, self._parts = (number, count), {}
        self._parts[index] = payload[PART.size :]
        if len(self._parts) < count:
            return None
        record = b"".join(self._parts[place] for place in range(count))
        self._frame, self._parts = (-1, -1), {}
        return unpack(record)


@final
class MavlinkSink:
    """`mavlink:udpout:HOST:14550?budget=BYTES_A_SECOND&system=1&text=land_use`, or `mavlink:/dev/ttyTHS1?baud=921600`.

    Sends a HEARTBEAT as an onboard computer every second. For each result it sends a NAMED_VALUE_FLOAT per head (confidence or
    quantity), the binary record (`record_codec.py`) as TUNNEL parts (`split_record`; `TunnelReader` joins them), and a
    STATUSTEXT when the label of the head `text` changes. The budget admits all parts of a record or none. With `key_file=FILE`
    every message is signed (`mavlink_signing.py`).

    Raises:
        MissingExtra: pymavlink is not installed.
        SinkError: the connection cannot be opened.
    """

    wants_pixels = False

    def __init__(self, rest: str) -> None:
        connection, options = parse_mavlink(rest)
        self._budget = Budget(number("mavlink", options, "budget"))
        self._text = options["text"]
        self._last = ""
        self._beat = 0.0
        self._system = int(number("mavlink", options, "system"))
        mavutil = load_mavutil()
        self._mavlink: Any = mavutil.mavlink
        try:
            self._link: Any = mavutil.mavlink_connection(
                connection,
                baud=int(number("mavlink", options, "baud")),
                source_system=self._system,
                source_component=mavutil.mavlink.MAV_COMP_ID_ONBOARD_COMPUTER,
            )
        except (OSError, ValueError) as error:
            raise SinkError(f"mavlink:{connection}: cannot be opened: {first_line(error)}") from error

        key = read_signing_key(options["key_file"]) if options["key_file"] else None
        self._signed = SignedLink(self._link, key) if key is not None else None
        self._overhead = TUNNEL_OVERHEAD + (SIGNATURE_BYTES if key is not None else 0)

    @property
    def over_budget(self) -> int:
        return self._budget.refused

    def write(self, result: FrameResult) -> None:
        self.flush()
        mav = self._mavlink
        boot_ms = result.frame.captured_ns // 1_000_000 % 2**32
        for name, answer in result.predictions.items():
            value = answer.confidence if isinstance(answer, Classification) and result.reason is None else None
            value = answer.value if isinstance(answer, RegressionPrediction) else value
            if isinstance(answer, MultilabelPrediction) and answer.present is not None:
                value = float(len(answer.present))
            if value is None:
                continue  # the frame has no label: send no value
            self.send(mav.MAVLink_named_value_float_message(boot_ms, name[:NAME_LENGTH].encode(), value))
        parts = split_record(pack(result), result.seq)
        if self._budget.allows(sum(len(part) + self._overhead for part in parts)):
            for part in parts:
                padded = part + bytes(TUNNEL_LENGTH - len(part))
                self.send(mav.MAVLink_tunnel_message(0, 0, TUNNEL_TYPE, len(part), padded), paid=True)
        text = f"{self._text}: {result.predictions[self._text]}" if self._text in result.predictions else ""
        label = text.rpartition(" ")[0]
        if label and label != self._last:
            self._last = label
            self.send(mav.MAVLink_statustext_message(mav.MAV_SEVERITY_INFO, text.encode("ascii", "replace")[:TEXT_LENGTH]))

    def flush(self) -> None:
        """Send a heartbeat if a second has passed."""
        now = time.monotonic()
        if now - self._beat >= HEARTBEAT_S:
            self._beat = now
            mav = self._mavlink
            kind, autopilot = mav.MAV_TYPE_ONBOARD_CONTROLLER, mav.MAV_AUTOPILOT_INVALID
            self.send(mav.MAVLink_heartbeat_message(kind, autopilot, 0, 0, mav.MAV_STATE_ACTIVE, 3), urgent=True)

    def send(self, message: Any, urgent: bool = False, paid: bool = False) -> None:
        """Send one message.

        Args:
            urgent: ignore the budget; its bytes still count.
            paid: its bytes were already counted.

        Raises:
            SinkError: the message is not on the allow-list, or the link is broken.
        """
        name = message.get_type()
        if name not in ALLOWED:
            raise SinkError(
                f"the message {name} is not on the allow-list ({', '.join(sorted(ALLOWED))}): a payload must not send commands"
            )
        if self._signed is not None:
            self._signed.stamp()
        content = message.pack(self._link.mav)
        if paid or self._budget.allows(len(content)) or urgent:
            try:
                self._link.write(content)
                self._link.mav.seq = (self._link.mav.seq + 1) % 256
            except OSError as error:
                raise SinkError(f"the MAVLink connection broke: {first_line(error)}") from error

    def close(self) -> None:
        self._link.close()
