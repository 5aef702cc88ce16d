"""Records to programs on the same computer, such as flight software in C: a socket in the file system."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import final

from spatialnet_edge.core.errors import SinkRefused
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.sinks.budget import Budget, path_and_budget
from spatialnet_edge.sinks.record_codec import pack

WAITING = 8
MOST_CLIENTS = 32
"""Each takes a descriptor and a buffer of the kernel; whoever comes later is turned away."""
LONGEST_PATH = 107
"""Bytes (unix(7), sun_path without its final zero)."""


def parse_unix(rest: str) -> tuple[Path, Budget]:
    """The path of the socket, and the budget.

    Raises:
        UsageError: a budget that is no number.
        SinkRefused: no path, or one that is too long for a socket.
    """
    path, budget = path_and_budget("unix", rest)
    if not path or len(os.fsencode(path)) > LONGEST_PATH:
        raise SinkRefused(f"unix:{rest}: a socket's path has 1 to {LONGEST_PATH} bytes; found {len(os.fsencode(path))}")
    return Path(path), budget


@final
class UnixSink:
    """`unix:/run/spatialnet-edge/results.sock?budget=BYTES_A_SECOND`: whoever connects gets every record from then on, one
    a message.

    The socket keeps messages whole (unix(7), SOCK_SEQPACKET). A client that reads too slowly misses records, which the frames'
    numbers show it; it never holds up the others or us. At most `MOST_CLIENTS` are served.

    Attributes:
        missed: records that one client did not get, counted for each client.
        lost: records that no client got though some were connected.
        turned_away: clients that came when `MOST_CLIENTS` were there.

    Raises:
        SinkRefused: the path cannot be used, or a living process listens there.
    """

    wants_pixels = False

    def __init__(self, rest: str) -> None:
        self.missed = self.lost = self.turned_away = 0
        self._path, self._budget = parse_unix(rest)
        self._clients: list[socket.socket] = []
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.is_socket():
                remove_dead_socket(self._path)
            self._server.bind(os.fspath(self._path))
            os.chmod(self._path, 0o660)
            self._inode = self._path.stat().st_ino
            self._server.listen(WAITING)
        except OSError as error:
            self._server.close()
            raise SinkRefused(f"{self._path}: no socket can be made here by user {os.geteuid()}: {error}") from error
        except SinkRefused:
            self._server.close()
            raise

    @property
    def over_budget(self) -> int:
        return self._budget.refused

    def write(self, result: FrameResult) -> None:
        self.flush()
        record = pack(result)
        if not self._budget.allows(len(record)):
            return
        got = [self._send(client, record) for client in [*self._clients]]
        self.lost += bool(got) and not any(got)

    def _send(self, client: socket.socket, record: bytes) -> bool:
        try:
            client.send(record, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            self.missed += 1
            return False
        except OSError:
            client.close()
            self._clients.remove(client)
            return False
        return True

    def flush(self) -> None:
        """Let in who is waiting, and let go who has left."""
        with suppress(OSError):  # nobody waits, or no descriptor is left: tried again with the next record
            while True:
                client, _ = self._server.accept()
                if len(self._clients) >= MOST_CLIENTS:
                    self._drop_gone()
                if len(self._clients) >= MOST_CLIENTS:
                    self.turned_away += 1
                    client.close()
                    continue
                client.setblocking(False)
                self._clients.append(client)

    def _drop_gone(self) -> None:
        for client in [*self._clients]:
            if has_left(client):
                client.close()
                self._clients.remove(client)

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self._server.fileno() < 0:
            return
        self._server.close()
        with suppress(OSError):
            if self._path.lstat().st_ino == self._inode:  # else another process has made its own there
                self._path.unlink()


def has_left(client: socket.socket) -> bool:
    """Whether the other end is closed. What a client sends is not read."""
    try:
        return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def remove_dead_socket(path: Path) -> None:
    """Remove a socket without a listener, such as that of a process which was killed.

    Raises:
        SinkRefused: somebody does.
    """
    for kind in (socket.SOCK_SEQPACKET, socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK) as probe:
            try:
                probe.connect(os.fspath(path))
            except ConnectionRefusedError:
                path.unlink()
                return
            except BlockingIOError:
                pass  # it listens, and its queue is full
            except OSError as error:
                if error.errno == errno.EPROTOTYPE:  # another kind of socket
                    continue
                raise
        raise SinkRefused(f"{path}: another process listens on this socket; stop it, or give this sink another path")
