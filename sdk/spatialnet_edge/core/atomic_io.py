"""Atomic, power-safe writes: after a power cut a file has either its old or its new content."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

LOCK_POLL_S = 0.02
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors for a disk without room. Unlike a missing permission, they may resolve without a person."""


DATA_MODE = 0o640
"""Mode of the files that a service writes, whatever the umask: the owner writes, the group reads, others have no access."""


def sync_folder(folder: Path) -> None:
    """Make renames and new files in a folder permanent (`fsync` of the directory, open(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replaced(path: Path, sync: bool = True, mode: int = 0o644) -> Generator[BinaryIO, None, None]:
    """Open a temporary file that replaces `path` by one atomic rename when the block ends.

    Args:
        sync: wait until the content is on disk; False for files that a restart rewrites.
        mode: permissions of the new file, whatever the umask.

    Raises:
        OSError: writing failed. After any error in the block the old content is unchanged.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
        if sync:
            sync_folder(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_durably(path: Path, content: bytes, sync: bool = True, mode: int = DATA_MODE) -> None:
    """Replace the content of a file atomically; see `replaced`."""
    with replaced(path, sync, mode) as file:
        file.write(content)


def point_link(link: Path, target: str) -> None:
    """Change the target of a symbolic link by one atomic rename."""
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, link)
    sync_folder(link.parent)


@contextmanager
def locked_folder(folder: Path, wait_s: float) -> Generator[None, None, None]:
    """Hold an exclusive lock on a folder, among processes and threads (flock(2)). It needs no file, so it also works on a full
    disk.

    The kernel releases the lock when the process ends. The lock is not re-entrant.

    Raises:
        TimeoutError: another holder kept the lock for `wait_s` seconds.
        OSError: the folder does not exist or cannot be read.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"{folder}: locked by another process for {wait_s} s") from None
                time.sleep(LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)
