"""Start guard: ends a process that hangs during the start, and handles SIGTERM meanwhile.

Python runs signal handlers in the main thread, between two bytecode instructions. While that thread is inside a C++ library,
where a broken model can hang, no handler runs. So a separate thread reads the signals from a socket that the C handler writes
to (`signal.set_wakeup_fd`).
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from types import FrameType, TracebackType
from typing import final

from spatialnet_edge.bundle.slots import Slots
from spatialnet_edge.service.crash_loop import forgive_start
from spatialnet_edge.service.events import Events
from spatialnet_edge.service.watchdog import notify

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LOOK_S = 0.1


def set_by_signals(stop: Event) -> None:
    """Make SIGTERM and SIGINT set `stop`, even while the main thread is blocked. Call it in the main thread."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, ignore_signal)

    def listen() -> None:
        with theirs:  # kept open while this thread listens
            while content := ours.recv(64):
                if set(content) & set(SIGNALS):
                    stop.set()

    Thread(target=listen, name="signals", daemon=True).start()


def ignore_signal(number: int, frame: FrameType | None) -> None:
    """Replaces the default action, which would end the process. The signal is handled through the socket."""


@final
class StartGuard:
    """Context manager that ends the process if the start hangs. Afterwards the alarm belongs to the `Watchdog`.

    Args:
        limit_s: time limit of the block; after it, the stack of every thread is written to standard error, and the process
            exits with status 1.
        stop: set when the process must end.
        leave: called from another thread when `stop` is set inside the block. It must not return.
    """

    def __init__(self, limit_s: float, stop: Event, leave: Callable[[], None]) -> None:
        self._limit_s = limit_s
        self._stop = stop
        self._leave = leave
        self._done = Event()
        self._lock = Lock()

    def __enter__(self) -> StartGuard:
        faulthandler.dump_traceback_later(self._limit_s, exit=True)
        Thread(target=self._watch, name="start guard", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            self._done.set()
        if error is not None:  # otherwise the watchdog has set the alarm again
            faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while not self._done.is_set():
            if self._stop.wait(LOOK_S):
                with self._lock:
                    if not self._done.is_set():
                        self._leave()
                return


@final
class TrialCount:
    """Restores the try and start counters of before this start."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tries = Slots(root).state.tries

    def forgive(self) -> None:
        """Do not count this start as a try or as part of a crash loop."""
        with suppress(OSError):
            forgive_start(self._root)
            if Slots(self._root).state.tries > self._tries:
                Slots(self._root).forgive_try()


def leave_at_start(trial: TrialCount, events: Events) -> None:
    """End the process during the start, without waiting for the main thread, which may hang inside a library."""
    notify("STOPPING=1")
    trial.forgive()
    events("stop", "stop requested during the start")
    events.close()
    os._exit(0)
