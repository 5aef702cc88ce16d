"""Position and attitude from an autopilot's MAVLink stream (common message set, GLOBAL_POSITION_INT 33 and ATTITUDE 30).

It listens and never sends: a payload that classifies does not command a vehicle.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from contextlib import suppress
from importlib import import_module
from threading import Event, Lock, Thread
from typing import Any, final

from spatialnet_edge.core.errors import MissingExtra, SourceRefused, first_line
from spatialnet_edge.core.frames import Pose

WANTED = ["GLOBAL_POSITION_INT", "ATTITUDE"]
DEFAULT_BAUD = 57600
OLDEST_S = 2.0
"""A position older than this, at the moment of the frame, is none."""
KEPT = 256
RETRY_S = 0.5
"""Between two tries to open a link that is not there."""


def load_mavutil() -> Any:
    """pymavlink's connections, speaking MAVLink 2 (which reads version 1 as well), and its common message set.

    Raises:
        MissingExtra: pymavlink is not installed.
    """
    os.environ.setdefault("MAVLINK20", "1")  # read when the message set is chosen
    try:
        mavutil: Any = import_module("pymavlink.mavutil")
    except ModuleNotFoundError as error:
        raise MissingExtra("pymavlink", "mavlink") from error
    if mavutil.mavlink.WIRE_PROTOCOL_VERSION != "2.0":
        mavutil.set_dialect("common")
    return mavutil


@final
class MavlinkPose:
    """Call it with a moment of the monotonic clock in nanoseconds. A link that breaks is opened again for as long as it takes.

    Args:
        connection: as pymavlink has it: `udpin:0.0.0.0:14550`, `/dev/ttyTHS1`, `tcp:host:port`.
        baud: of a serial line.
        patient: wait for a link that is not there yet as for one that broke: an autopilot may start later than its payload.

    Raises:
        MissingExtra: pymavlink is not installed.
        SourceRefused: the connection cannot be opened, and we are not patient.
    """

    def __init__(self, connection: str, baud: int = DEFAULT_BAUD, patient: bool = False) -> None:
        self._mavutil = load_mavutil()
        self._connection, self._baud = connection, baud
        self._link: Any = None
        try:
            self._link = self._open()
        except OSError as error:
            if not patient:
                raise SourceRefused(f"mavlink:{connection}: cannot be opened: {first_line(error)}") from error
        self._attitude = (0.0, 0.0, 0.0)
        self._poses: deque[tuple[int, Pose]] = deque(maxlen=KEPT)
        self._lock = Lock()
        self._closed = Event()
        self._thread = Thread(target=self._listen, name="mavlink pose", daemon=True)
        self._thread.start()

    def __call__(self, captured_ns: int) -> Pose | None:
        """The pose nearest to a moment."""
        with self._lock:
            near = min(self._poses, key=lambda each: abs(each[0] - captured_ns), default=None)
        return near[1] if near is not None and abs(near[0] - captured_ns) < OLDEST_S * 1e9 else None

    def close(self) -> None:
        self._closed.set()
        self._thread.join(timeout=2)
        self._let_go()

    def _open(self) -> Any:
        return self._mavutil.mavlink_connection(self._connection, baud=self._baud)

    def _let_go(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            with suppress(Exception):  # it is broken, or was closed from the other side
                link.close()

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                if self._link is None:
                    self._link = self._open()
                message = self._link.recv_match(type=WANTED, blocking=True, timeout=0.5)
            except (OSError, TypeError, ValueError):  # what a line that is not there, or was unplugged, makes of pyserial
                self._let_go()
                self._closed.wait(RETRY_S)
                continue
            if message is None:
                continue
            if message.get_type() == "ATTITUDE":
                self._attitude = tuple(math.degrees(angle) for angle in (message.roll, message.pitch, message.yaw))
                continue
            if not message.lat and not message.lon:  # what ArduPilot sends before it knows where it is
                continue
            roll, pitch, yaw = self._attitude
            pose = Pose(message.lat / 1e7, message.lon / 1e7, message.alt / 1e3, roll, pitch, yaw)
            with self._lock:
                self._poses.append((time.monotonic_ns(), pose))
