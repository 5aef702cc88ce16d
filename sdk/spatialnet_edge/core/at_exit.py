"""Close open objects when the interpreter ends.

A daemon thread inside a C++ library while the interpreter shuts down aborts the process with SIGABRT ("terminate called
without an active exception"). So objects with such threads register here and are closed while threads still run.
"""

from __future__ import annotations

import atexit
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet


class Closeable(Protocol):
    """An object with threads or devices. `close` may be called twice."""

    def close(self) -> None: ...


_open: WeakSet[Closeable] = WeakSet()


def close_at_exit(thing: Closeable) -> None:
    """Close `thing` when the interpreter ends, unless it was closed or collected before."""
    _open.add(thing)


@atexit.register
def close_all() -> None:
    """Close all registered objects. An error in one does not keep the others open."""
    for thing in list(_open):
        with suppress(Exception):
            thing.close()
