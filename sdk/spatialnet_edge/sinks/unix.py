"""Unix socket sink: records to programs on the same computer, such as flight software in C."""

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
"""Limit of clients, because each one needs a descriptor and a kernel buffer; others are rejected."""
LONGEST_PATH = 107
"""Largest path in bytes (unix(7), sun_path without its final zero)."""


def parse_unix(rest: str) -> tuple[Path, Budget]:
    """Parse the path of the socket and the budget.

    Raises:
        UsageError: the budget is not a number.
        SinkRefused: no path, or one that is too long for a socket.
    """
    path, budget = path_and_budget("unix", rest)
    if not path or len(os.fsencode(path)) > LONGEST_PATH:
        raise SinkRefused(f"unix:{rest}: a socket's path has 1 to {LONGEST_PATH} bytes; found {len(os.fsencode(path))}")
    return Path(path), budget


@final
class UnixSink:
    """`unix:/run/spatialnet-edge/results.sock?budget=BYTES_A_SECOND`: every connected client gets every record, one per
    message.

    The socket preserves message boundaries (unix(7), SOCK_SEQPACKET). A client that reads too slowly misses records and can
    detect this by the frame numbers; it does not delay other clients or the pipeline. At most `MOST_CLIENTS` are served.

    Attributes:
        missed: undelivered records, counted per client.
        lost: records that no client got although some were connected.
        turned_away: clients rejected because `MOST_CLIENTS` were connected.

    Raises:
        SinkRefused: the path cannot be used, or another process listens there.
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
            raise SinkRefused(f"{self._path}: a socket cannot be created here by user {os.geteuid()}: {error}") from error
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
        """Accept waiting clients and remove disconnected ones."""
        with suppress(OSError):  # no waiting client, or no free descriptor: retried with the next record
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
            if self._path.lstat().st_ino == self._inode:  # otherwise another process has created its socket there
                self._path.unlink()


def has_left(client: socket.socket) -> bool:
    """Whether the client has disconnected. Data from a client are not read."""
    try:
        return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def remove_dead_socket(path: Path) -> None:
    """Remove a socket without a listener, for instance of a killed process.

    Raises:
        SinkRefused: another process listens.
    """
    for kind in (socket.SOCK_SEQPACKET, socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK) as probe:
            try:
                probe.connect(os.fspath(path))
            except ConnectionRefusedError:
                path.unlink()
                return
            except BlockingIOError:
                pass  # a listener with a full queue
            except OSError as error:
                if error.errno == errno.EPROTOTYPE:  # a socket of another type
                    continue
                raise
        raise SinkRefused(f"{path}: another process listens on this socket; stop that process, or use another path")
