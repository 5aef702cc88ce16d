"""Standard error that never blocks the service.

A pipe that nobody reads is full after 64 KiB. The next write then blocks forever, be it an event, output of a C library, a
stack trace or a final message. So descriptor 2 becomes non-blocking for this process and its children, and a separate thread
writes the lines of the service from a bounded queue.
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
"""Capacity of the queue in lines; when it is full, new lines are dropped and counted."""
LINE_BYTES = 4096
"""Largest atomic write to a pipe in bytes (pipe(7), PIPE_BUF)."""
RETRY_MS = 200
CLOSE_S = 0.3


def unblock_standard_error() -> None:
    """Make writes to descriptor 2 fail with EAGAIN instead of blocking, for Python, C libraries and children.

    The flag belongs to the open file description, which other processes may share. So a pipe or a terminal is reopened for
    this process. A socket cannot be reopened; systemd's journal socket has no other writer. Files never block.
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
    """Write one last line at the end of a process; dropped if the write would block."""
    with suppress(OSError):
        if select.select([], [STANDARD_ERROR], [], 0)[1]:
            os.write(STANDARD_ERROR, to_bytes(line))


def to_bytes(line: str) -> bytes:
    """Encode a line of at most `LINE_BYTES`, with its line feed."""
    return line.encode(errors="backslashreplace")[: LINE_BYTES - 1] + b"\n"


@final
class Diagnostics:
    """Writes lines to standard error in a separate thread. Callers never wait.

    Attributes:
        dropped: number of lines that were not read in time.
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
        """Wait briefly for the thread to write the queue; the rest is dropped."""
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
        """Write a line. False if the service ends before it is read, or there is no reader any more."""
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
