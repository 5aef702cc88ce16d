"""Watchdog: systemd ends a hung process if it started the service; otherwise the process ends itself.

Only the pipeline loops reset the watchdog, and only if every one of them has made progress lately. A separate keep-alive
thread would keep running while the pipelines hang.
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
    """Notify systemd (sd_notify(3): one datagram to the socket in `NOTIFY_SOCKET`); False if systemd did not start us."""
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
    """Collects progress of the loops and notifies systemd.

    Args:
        names: of the loops that must all make progress.
        hang_s: if a loop makes no progress for this long, the process writes the stack of each thread and exits.
    """

    def __init__(self, names: list[str], hang_s: float) -> None:
        self._hang_s = hang_s
        self._lock = Lock()
        now = time.monotonic()
        self._seen = dict.fromkeys(names, now)
        self._passed_on = 0.0
        faulthandler.dump_traceback_later(hang_s, exit=True)

    def beat(self, name: str) -> None:
        """Record progress of a loop; called in every round."""
        now = time.monotonic()
        with self._lock:
            self._seen[name] = now
            if now - self._passed_on < LEAST_INTERVAL_S or now - min(self._seen.values()) > self._hang_s / 2:
                return
            self._passed_on = now
        faulthandler.dump_traceback_later(self._hang_s, exit=True)
        notify("WATCHDOG=1")

    def done(self, name: str) -> None:
        """Remove a loop that has ended normally."""
        with self._lock:
            self._seen.pop(name, None)

    def leave_within(self, seconds: float) -> None:
        """Set the time limit for the shutdown."""
        faulthandler.dump_traceback_later(seconds, exit=True)

    def close(self) -> None:
        faulthandler.cancel_dump_traceback_later()
