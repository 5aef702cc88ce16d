"""What flies is pinned: a shared lock on its folder tells other processes not to remove it.

The kernel drops a lock with the process that holds it (flock(2)), whatever ends the process.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

_PINS: dict[Path, int] = {}
"""For each root of slots, the descriptor of the folder that this process flies."""


def pin(root: Path, folder: Path) -> None:
    """Keep a folder until this process ends or pins another one of the same root. Where the file system has no locks, nothing
    happens."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        unpin(root)
        _PINS[root.resolve()] = descriptor


def unpin(root: Path) -> None:
    """Let go of what this process flies."""
    descriptor = _PINS.pop(root.resolve(), None)
    if descriptor is not None:
        os.close(descriptor)


def is_pinned(folder: Path) -> bool:
    """Whether any process, this one too, flies what lies in a folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
