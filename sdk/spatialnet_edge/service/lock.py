"""Device lock: one process per device, because two engines would compete for its memory and time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from spatialnet_edge.core.atomic_io import DATA_MODE
from spatialnet_edge.core.errors import Busy


@contextmanager
def device_lock(path: Path) -> Generator[None, None, None]:
    """Hold a lock while this process lives (flock(2): the kernel releases it when the process ends).

    Raises:
        Busy: another process holds it (with its pid), or the file cannot be created.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, DATA_MODE)
    except OSError as error:
        raise Busy(
            f"{path}: cannot be written by user {os.geteuid()}: {error.strerror}; give this user write access, and "
            "check the free space"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise Busy(f"{path}: held by pid {holder}; stop that process, or give this one another 'device'") from error
    with suppress(OSError):  # on a full disk the pid is not recorded, but the lock is held
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    try:
        yield
    finally:
        os.close(descriptor)
