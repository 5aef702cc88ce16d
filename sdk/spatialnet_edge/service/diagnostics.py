"""Standard error that never holds the service up.

A pipe that nobody reads is full after 64 KiB, and the next write waits for ever: in an event, in a library in C, in the trace of
a hang, in the last words of a process. So descriptor 2 becomes non-blocking for this process and its children, and lines of the
service wait in a bounded queue for a thread of their own.
"""

from __future__ import annotations

import os
import select
import stat
from collections import deque
from contextlib import suppress
from threading import Condition, Thread
from typing import final

STANDARD_ERROR = 2
MOST_WAITING = 256
"""Lines that wait for a slow reader; then the newest are left out and counted."""
LINE_BYTES = 4096
"""A write of so much to a pipe is whole or not at all (pipe(7), PIPE_BUF)."""
RETRY_MS = 200
CLOSE_S = 0.3


def unblock_standard_error() -> None:
    """Let writes to descriptor 2 fail with EAGAIN instead of waiting, for whoever writes: Python, libraries in C, children.

    The flag belongs to the open file, which other processes may share: a pipe or a terminal is opened anew for us alone. A socket
    cannot be; of systemd's, which goes to the journal, we are the only writer. Files never wait.
    """
    with suppress(OSError):
        mode = os.fstat(STANDARD_ERROR).st_mode
        if stat.S_ISSOCK(mode):
            os.set_blocking(STANDARD_ERROR, False)
        elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            ours = os.open(f"/proc/self/fd/{STANDARD_ERROR}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            os.dup2(ours, STANDARD_ERROR)
            os.close(ours)


def last_words(line: str) -> None:
    """One line at the end of a process; left out if nobody takes it at once."""
    with suppress(OSError):
        if select.select([], [STANDARD_ERROR], [], 0)[1]:
            os.write(STANDARD_ERROR, to_bytes(line))


def to_bytes(line: str) -> bytes:
    """A line of at most `LINE_BYTES`, with its end."""
    return line.encode(errors="backslashreplace")[: LINE_BYTES - 1] + b"\n"


@final
class Diagnostics:
    """Writes lines to standard error from a thread of its own. A caller never waits.

    Attributes:
        dropped: lines that nobody took in time.
    """

    def __init__(self, descriptor: int = STANDARD_ERROR) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._lines: deque[str] = deque()
        self._ready = Condition()
        self._closed = False
        self._thread = Thread(target=self._work, name="diagnostics", daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        """Queue a line, or count it as dropped."""
        with self._ready:
            if len(self._lines) >= MOST_WAITING:
                self.dropped += 1
                return
            self._lines.append(line)
            self._ready.notify()

    def close(self) -> None:
        """Give the thread a moment for what waits; whatever does not go out then is dropped."""
        with self._ready:
            self._closed = True
            self._ready.notify()
        self._thread.join(CLOSE_S)

    def _work(self) -> None:
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._lines or self._closed)
                if not self._lines:
                    return
                line = self._lines.popleft()
            if not self._write(to_bytes(line)):
                self.dropped += 1

    def _write(self, content: bytes) -> bool:
        """False when the service ends before the reader takes the line, or there is no reader any more."""
        writable = select.poll()
        writable.register(self._descriptor, select.POLLOUT)
        while True:
            try:
                if writable.poll(RETRY_MS):
                    os.write(self._descriptor, content)
                    return True
            except BlockingIOError:
                pass
            except OSError:
                return False
            if self._closed:
                return False
