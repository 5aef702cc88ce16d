"""Results into a vehicle's MAVLink network (extra `mavlink`), as an onboard computer: it reports, and never commands."""

from __future__ import annotations

import time
from typing import Any, final

from spatialnet_edge.core.errors import SinkError, first_line
from spatialnet_edge.core.results import Classification, FrameResult, MultilabelPrediction, RegressionPrediction
from spatialnet_edge.sinks.budget import Budget, number, options_of
from spatialnet_edge.sinks.record_codec import pack
from spatialnet_edge.sources.mavlink_pose import DEFAULT_BAUD, load_mavutil

ALLOWED = frozenset({"HEARTBEAT", "NAMED_VALUE_FLOAT", "STATUSTEXT", "TUNNEL"})
"""What may go out. Everything else, commands first of all, is refused where the bytes leave."""
HEARTBEAT_S = 1.0
NAME_LENGTH, TEXT_LENGTH, TUNNEL_LENGTH = 10, 50, 128
TUNNEL_TYPE = 0x534E
"""Payload type of the records ("SN"): not one that common.xml gives to anybody (MAV_TUNNEL_PAYLOAD_TYPE)."""
OPTIONS = {"budget": "0", "system": "1", "baud": str(DEFAULT_BAUD), "text": "land_use"}


@final
class MavlinkSink:
    """`mavlink:udpout:HOST:14550?budget=BYTES_A_SECOND&system=1&text=land_use`, or `mavlink:/dev/ttyTHS1?baud=921600`.

    Every second a HEARTBEAT as an onboard computer; for each result a NAMED_VALUE_FLOAT for each head (confidence or quantity), a
    TUNNEL with the whole record (`wire.py`) where it fits, and a STATUSTEXT when the answer of the head `text` changes.

    Raises:
        MissingExtra: pymavlink is not installed.
        SinkError: the connection cannot be opened.
    """

    wants_pixels = False

    def __init__(self, rest: str) -> None:
        connection, _, query = rest.partition("?")
        options = options_of(f"mavlink:{rest}", query, OPTIONS)
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
                continue  # the frame has no label: say nothing rather than a number
            self.send(mav.MAVLink_named_value_float_message(boot_ms, name[:NAME_LENGTH].encode(), value))
        record = pack(result)
        if len(record) <= TUNNEL_LENGTH:
            padded = record + bytes(TUNNEL_LENGTH - len(record))
            self.send(mav.MAVLink_tunnel_message(0, 0, TUNNEL_TYPE, len(record), padded))
        text = f"{self._text}: {result.predictions[self._text]}" if self._text in result.predictions else ""
        label = text.rpartition(" ")[0]
        if label and label != self._last:
            self._last = label
            self.send(mav.MAVLink_statustext_message(mav.MAV_SEVERITY_INFO, text.encode("ascii", "replace")[:TEXT_LENGTH]))

    def flush(self) -> None:
        """A heartbeat, if a second has passed."""
        now = time.monotonic()
        if now - self._beat >= HEARTBEAT_S:
            self._beat = now
            mav = self._mavlink
            kind, autopilot = mav.MAV_TYPE_ONBOARD_CONTROLLER, mav.MAV_AUTOPILOT_INVALID
            self.send(mav.MAVLink_heartbeat_message(kind, autopilot, 0, 0, mav.MAV_STATE_ACTIVE, 3), urgent=True)

    def send(self, message: Any, urgent: bool = False) -> None:
        """Put one message on the link.

        Args:
            urgent: whatever the budget says.

        Raises:
            SinkError: a message that is not on the allow-list, or the link is broken.
        """
        name = message.get_type()
        if name not in ALLOWED:
            raise SinkError(
                f"the message {name} is not on the allow-list ({', '.join(sorted(ALLOWED))}): a payload does not command"
            )
        content = message.pack(self._link.mav)
        if self._budget.allows(len(content)) or urgent:
            try:
                self._link.write(content)
                self._link.mav.seq = (self._link.mav.seq + 1) % 256
            except OSError as error:
                raise SinkError(f"the MAVLink connection broke: {first_line(error)}") from error

    def close(self) -> None:
        self._link.close()
