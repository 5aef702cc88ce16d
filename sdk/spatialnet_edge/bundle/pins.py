"""Pins: a shared lock on the folder of the active bundle, so that other processes do not remove it.

The kernel releases the lock when the process ends, for whatever reason (flock(2)).
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

_PINS: dict[Path, int] = {}
"""Root of the slots to the descriptor of the folder that this process has pinned."""


def pin(root: Path, folder: Path) -> None:
    """Pin a folder until this process ends or pins another folder of the same root. Without effect on a file system without
    locks."""
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
    """Release the pin of this process."""
    descriptor = _PINS.pop(root.resolve(), None)
    if descriptor is not None:
        os.close(descriptor)


def is_pinned(folder: Path) -> bool:
    """Whether any process, including this one, has pinned a folder."""
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
