"""Who ends a process that hangs: systemd if it started us, else the process itself.

A sign of life comes from the loops of the pipelines alone, and only when every one of them has come round lately: a thread that
does nothing but say "alive" would say so for ever.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import time
from threading import Lock
from typing import final

LEAST_INTERVAL_S = 0.5


def notify(message: str) -> bool:
    """Tell systemd (sd_notify(3): one datagram to the socket in `NOTIFY_SOCKET`); False when it did not start us."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            connection.sendto(message.encode(), address)
    except OSError:
        return False
    return True


@final
class Watchdog:
    """Collects signs of life and passes them on.

    Args:
        names: of the loops that must all come round.
        hang_s: without a sign from every loop for so long, the process writes where each thread is, and ends.
    """

    def __init__(self, names: list[str], hang_s: float) -> None:
        self._hang_s = hang_s
        self._lock = Lock()
        now = time.monotonic()
        self._seen = dict.fromkeys(names, now)
        self._passed_on = 0.0
        faulthandler.dump_traceback_later(hang_s, exit=True)

    def beat(self, name: str) -> None:
        """Called by a loop in every round."""
        now = time.monotonic()
        with self._lock:
            self._seen[name] = now
            if now - self._passed_on < LEAST_INTERVAL_S or now - min(self._seen.values()) > self._hang_s / 2:
                return
            self._passed_on = now
        faulthandler.dump_traceback_later(self._hang_s, exit=True)
        notify("WATCHDOG=1")

    def done(self, name: str) -> None:
        """This loop has ended as it should."""
        with self._lock:
            self._seen.pop(name, None)

    def leave_within(self, seconds: float) -> None:
        """From now on there is only the way out, and so much time for it."""
        faulthandler.dump_traceback_later(seconds, exit=True)

    def close(self) -> None:
        faulthandler.cancel_dump_traceback_later()
