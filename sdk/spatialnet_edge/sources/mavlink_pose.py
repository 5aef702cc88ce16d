"""Position and attitude from an autopilot's MAVLink stream (common message set, GLOBAL_POSITION_INT 33 and ATTITUDE 30).

It never sends: a payload that classifies does not command a vehicle. It uses positions of one system and component, because a
link also carries gimbals, ground stations and other vehicles. With a key (`?key_file=FILE`), messages without a right signature
of MAVLink 2 are refused; without a key, anybody who can write to the link can imitate the autopilot.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from threading import Event, Lock, Thread
from typing import Any, final

from spatialnet_edge.core.errors import MissingExtra, SourceRefused, first_line
from spatialnet_edge.core.frames import Pose
from spatialnet_edge.sources.mavlink_signing import SignedLink, is_refused, read_signing_key
from spatialnet_edge.sources.pose import Autopilot

WANTED = ("GLOBAL_POSITION_INT", "ATTITUDE")
SILENCE_S = 0.25
"""Seconds between two checks of the stop flag."""
OLDEST_S = 2.0
"""Largest age of a position at the time of the frame, in seconds; an older one is not used."""
KEPT = 256
RETRY_S = 0.5
"""Seconds between two attempts to open a missing link."""
LOWEST_M, HIGHEST_M = -1_000.0, 100_000.0
"""Plausible altitudes of a vehicle with an autopilot, in metres above sea level."""
MOST_STRANGERS = 8
STRANGER = 'system {0}, component {1} is ignored; if it is the autopilot, set pose = "mavlink:…?system={0}&component={1}"'

UNSIGNED = (
    "a message without a right signature is ignored, and so are all others like it; if the autopilot sent it, give it the same "
    "signing key, and see that the clocks of both differ by less than a minute"
)


def load_mavutil() -> Any:
    """Import pymavlink's connections for MAVLink 2 (which also reads version 1), with the common message set.

    Raises:
        MissingExtra: pymavlink is not installed.
    """
    os.environ.setdefault("MAVLINK20", "1")  # pymavlink reads this when the message set is chosen
    try:
        mavutil: Any = import_module("pymavlink.mavutil")
    except ModuleNotFoundError as error:
        raise MissingExtra("pymavlink", "mavlink") from error
    if mavutil.mavlink.WIRE_PROTOCOL_VERSION != "2.0":
        mavutil.set_dialect("common")
    return mavutil


def keep_nothing(message: Any) -> None:
    """Replaces pymavlink's `post_message`."""


@final
class MavlinkPose:
    """Function from a monotonic time in nanoseconds to a pose. A broken link is reopened without limit.

    Args:
        autopilot: the link, and the system and component to use.
        patient: wait for a missing link as for a broken one: an autopilot may start later than its payload.
        report: called with `pose_ignored`, once per other sender of positions.

    Attributes:
        ignored: number of messages from others, without a right signature, or with impossible values.

    Raises:
        MissingExtra: pymavlink is not installed.
        SourceRefused: the connection cannot be opened and `patient` is False.
        UsageError: the key cannot be read.
    """

    def __init__(self, autopilot: Autopilot, patient: bool = False, report: Callable[[str, str], None] | None = None) -> None:
        self.ignored = 0
        self._mavutil = load_mavutil()
        self._autopilot = autopilot
        self._report = report
        self._strangers: set[tuple[int, int]] = set()
        self._key = read_signing_key(autopilot.key_file) if autopilot.key_file else None
        self._signed: SignedLink | None = None
        self._unsigned_told = False
        self._link: Any = None
        try:
            self._link = self._open()
        except OSError as error:
            if not patient:
                raise SourceRefused(f"mavlink:{autopilot.connection}: cannot be opened: {first_line(error)}") from error
        self._attitude: tuple[float | None, float | None, float | None] = (None, None, None)
        self._poses: deque[tuple[int, Pose]] = deque(maxlen=KEPT)
        self._lock = Lock()
        self._closed = Event()
        self._thread = Thread(target=self._listen, name="mavlink pose", daemon=True)
        self._thread.start()

    def __call__(self, captured_ns: int) -> Pose | None:
        """The pose nearest to a time."""
        with self._lock:
            near = min(self._poses, key=lambda each: abs(each[0] - captured_ns), default=None)
        return near[1] if near is not None and abs(near[0] - captured_ns) < OLDEST_S * 1e9 else None

    def close(self) -> None:
        self._closed.set()
        self._thread.join(timeout=2)
        self._let_go()

    def _open(self) -> Any:
        link = self._mavutil.mavlink_connection(self._autopilot.connection, baud=self._autopilot.baud)
        link.post_message = keep_nothing  # otherwise it keeps the messages and parameters of every sender
        self._signed = SignedLink(link, self._key) if self._key is not None else None
        return link

    def _let_go(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            with suppress(Exception):  # broken, or closed by the peer
                link.close()

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                if self._link is None:
                    self._link = self._open()
                message = self._link.recv_msg()
                self._forget_senders()
                if self._signed is not None:
                    self._signed.after_receive()
                if message is None:
                    self._link.select(SILENCE_S)
                    continue
            except (OSError, TypeError, ValueError):  # pyserial raises these for a missing or unplugged line
                self._let_go()
                self._closed.wait(RETRY_S)
                continue
            except Exception:  # pymavlink's parser raises these for hostile bytes; the link itself works
                self.ignored += 1
                continue
            if is_refused(message):
                self._refuse_unsigned()
            elif message.get_type() in WANTED and self._is_believed(message):
                self._take(message)

    def _forget_senders(self) -> None:
        """Clear the sender addresses that pymavlink keeps for replies; we never reply."""
        if isinstance(self._link, self._mavutil.mavudp):
            self._link.clients.clear()
            self._link.clients_last_alive.clear()

    def _refuse_unsigned(self) -> None:
        self.ignored += 1
        if not self._unsigned_told and self._report is not None:
            self._unsigned_told = True
            self._report("pose_ignored", UNSIGNED)

    def _is_believed(self, message: Any) -> bool:
        sender = (message.get_srcSystem(), message.get_srcComponent())
        if sender == (self._autopilot.system, self._autopilot.component):
            return True
        self.ignored += 1
        if sender not in self._strangers and len(self._strangers) < MOST_STRANGERS:
            self._strangers.add(sender)
            if self._report is not None:
                self._report("pose_ignored", f"{message.get_type()} from {STRANGER.format(*sender)}")
        return False

    def _take(self, message: Any) -> None:
        if message.get_type() == "ATTITUDE":
            angles = (message.roll, message.pitch, message.yaw)
            if all(abs(angle) <= 2 * math.pi for angle in angles):  # False for NaN
                roll, pitch, yaw = map(math.degrees, angles)
                self._attitude = (roll, pitch, yaw)
            else:
                self.ignored += 1
            return
        if not message.lat and not message.lon:  # ArduPilot sends this before it has a position
            return
        latitude, longitude, altitude = message.lat / 1e7, message.lon / 1e7, message.alt / 1e3
        if abs(latitude) > 90 or abs(longitude) > 180 or not LOWEST_M <= altitude <= HIGHEST_M:
            self.ignored += 1
            return
        with self._lock:
            self._poses.append((time.monotonic_ns(), Pose(latitude, longitude, altitude, *self._attitude)))
