"""Records to programs on the same computer, such as flight software in C: a socket in the file system."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import final

from spatialnet_edge.core.errors import SinkRefused
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.sinks.budget import path_and_budget
from spatialnet_edge.sinks.record_codec import pack

WAITING = 8


@final
class UnixSink:
    """`unix:/run/spatialnet-edge/results.sock?budget=BYTES_A_SECOND`: whoever connects gets every record from then on, one
    a message.

    The socket keeps messages whole (unix(7), SOCK_SEQPACKET). A client that reads too slowly misses records, which the frames'
    numbers show it; it never holds up the others or us. Those are counted in `missed`.

    Raises:
        SinkRefused: the path cannot be used.
    """

    wants_pixels = False

    def __init__(self, rest: str) -> None:
        self.missed = 0
        path, self._budget = path_and_budget("unix", rest)
        self._path = Path(path)
        self._clients: list[socket.socket] = []
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.is_socket():
                self._path.unlink()  # of a process that is gone: only one runs on a device
            self._server.bind(path)
            os.chmod(self._path, 0o660)
            self._server.listen(WAITING)
        except OSError as error:
            self._server.close()
            raise SinkRefused(f"{path}: no socket can be made here by user {os.geteuid()}: {error}") from error

    @property
    def over_budget(self) -> int:
        return self._budget.refused

    def write(self, result: FrameResult) -> None:
        self.flush()
        record = pack(result)
        if not self._budget.allows(len(record)):
            return
        for client in [*self._clients]:
            try:
                client.send(record, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self.missed += 1
            except OSError:
                client.close()
                self._clients.remove(client)

    def flush(self) -> None:
        """Let in who is waiting."""
        with suppress(BlockingIOError):
            while True:
                client, _ = self._server.accept()
                client.setblocking(False)
                self._clients.append(client)

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()
        self._server.close()
        self._path.unlink(missing_ok=True)
