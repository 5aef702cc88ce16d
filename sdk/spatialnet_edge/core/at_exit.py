"""Close what is still open when the interpreter ends.

A daemon thread that is inside a C++ library when the interpreter is taken down ends the process with SIGABRT ("terminate called
without an active exception"). So whatever owns such a thread registers here, and is closed while threads still run.
"""

from __future__ import annotations

import atexit
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet


class Closeable(Protocol):
    """Anything with threads or devices behind it. `close` may be called twice."""

    def close(self) -> None: ...


_open: WeakSet[Closeable] = WeakSet()


def close_at_exit(thing: Closeable) -> None:
    """Close `thing` at the end of the interpreter, unless it is closed or collected before."""
    _open.add(thing)


@atexit.register
def close_all() -> None:
    """Close everything that is registered; an error in one does not keep the others open."""
    for thing in list(_open):
        with suppress(Exception):
            thing.close()
