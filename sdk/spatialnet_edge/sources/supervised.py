"""Supervised source: its capture process is killed when it hangs and restarted when it ends.

OpenCV's `read()` can block forever inside a driver, and no code in the same process can interrupt it (OpenCV issues 4780,
18116). So a separate process (`capture_process.py`) reads cameras and streams. It is restarted after a timeout or after a
message that breaks the protocol, because the decoded data may have compromised that process.
"""

from __future__ import annotations

import array
import os
import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Lock
from typing import Literal, TypeAlias, final

import msgspec
from typing_extensions import assert_never

from spatialnet_edge.core.errors import SourceLost, SourceRefused, SpatialNetError, first_line
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.core.redaction import redacted
from spatialnet_edge.sources.registry import camera_node
from spatialnet_edge.sources.shm_transport import (
    MAX_MESSAGE,
    BadMessage,
    Channel,
    Ended,
    FrameMessage,
    Memory,
    Message,
    OpenedMessage,
    OpenMessage,
    RingMade,
    SkippedMessage,
    check_place,
    decode_message,
    encode,
    frame_of,
    map_memory,
    socket_pair,
)

MAX_REASONS = 32
"""Limit of distinct skip reasons, because each one is counted separately."""

Report = Callable[[str, str], None]
"""Called with an event's name and one line of text."""


ProcessFrames: TypeAlias = Generator[Frame | Skipped, None, tuple[str, SpatialNetError] | None]
"""Frames of one capture process. The return value is the event that ended it; None at the source's own end."""


def ignore_event(kind: str, detail: str) -> None:
    """Ignore an event."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts of a camera, in seconds.

    Attributes:
        opening: from the start of the capture process to the open source.
        silence: minimum timeout between two frames; three frame intervals for a slow camera.
        first_wait, longest_wait: pause before reopening; doubled each time, with 10 % jitter.
        give_up: when to raise the error instead of retrying: `never`; `unopened`: if the camera has never been open; or
            `always`.
    """

    opening: float = 15.0
    silence: float = 1.5
    first_wait: float = 0.5
    longest_wait: float = 30.0
    give_up: Literal["never", "unopened", "always"] = "never"


@final
class SupervisedSource:
    """Any source by its URI, in a separate process.

    Args:
        uri: sent to the capture process through its socket, because every user of the computer can read process arguments.
        name: display name, and the `uri` of this source; None: the URI without user and password.
        report: called with `camera_open`, `camera_lost`, `camera_hung` and `camera_absent`.
    """

    def __init__(
        self, uri: str, patience: Timeouts | None = None, report: Report = ignore_event, live: bool = True,
        name: str | None = None,
    ) -> None:  # fmt: skip
        self.uri = name or redacted(uri)
        self._address = uri
        self.length: int | None = None
        self.fps: float | None = None
        self.live = live
        self._patience = patience or Timeouts()
        self._report = report
        self._closed = Event()
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._seq = 0
        self._open = False
        self._was_open = False
        self._reasons: set[str] = set()

    @property
    def delivering(self) -> bool:
        """Whether the source is open now."""
        return self._open

    def __iter__(self) -> Iterator[Frame | Skipped]:
        wait = self._patience.first_wait
        while not self._closed.is_set():
            seen = self._seq
            failure = yield from self._process_frames()
            self._open = False
            if failure is None or self._closed.is_set():
                return
            kind, error = failure
            self._report(kind, str(error))
            gives_up = self._patience.give_up
            if gives_up == "always" or (gives_up == "unopened" and self._seq == 0):
                raise error
            if self._seq > seen:
                wait = self._patience.first_wait
            if kind != "camera_hung":  # starting a process already takes enough time
                self._pause(wait * random.uniform(0.9, 1.1))
                wait = min(wait * 2, self._patience.longest_wait)

    def _pause(self, seconds: float) -> None:
        """Wait, but stop waiting when a disconnected camera is plugged in again."""
        device = camera_node(self._address)
        was_there = device is not None and device.exists()
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._closed.wait(min(left, 0.5)):
            if device is not None and device.exists() != was_there:
                return

    def close(self) -> None:
        """End the capture process, and with it the iteration."""
        self._closed.set()
        with self._lock:
            if self._process is not None:
                self._process.kill()

    def _named(self, detail: str) -> str:
        """The capture process's text, with the name in place of the URI."""
        return redacted(detail.replace(self._address, self.uri))

    def _process_frames(self) -> ProcessFrames:
        """Run one capture process from start to end. Returns None at the source's own end, otherwise the event and the
        error."""
        ours, theirs = socket_pair()
        channel = Channel(ours)
        command = capture_command(theirs.fileno())
        with self._lock:
            if self._closed.is_set():
                return None
            self._process = subprocess.Popen(  # standard output is for results; output of drivers must not mix with them
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                start_new_session=True,  # the runtime handles Ctrl-C and then ends this process
            )  # fmt: skip
        theirs.close()
        with suppress(OSError):  # it may have ended already; that is detected below
            ours.send(encode(OpenMessage(os.fsencode(self._address))))
        try:
            return (yield from self._listen(channel))
        except BadMessage as error:
            what = f"{self.uri}: its capture process sent {self._named(str(error))}; the process is killed and restarted"
            return "camera_lost", SourceLost(what)
        finally:
            self._process.kill()
            self._process.wait()
            with suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)

    def _listen(self, channel: Channel) -> ProcessFrames:
        memory: Memory | None = None
        base, limit = self._seq, self._patience.opening
        while True:
            received = receive(channel.connection, limit)
            if received is None:
                what = f"no frame for {limit:.1f} s" if self._open else f"not open after {limit:.0f} s"
                return "camera_hung", SourceLost(f"{self.uri}: {what}; its capture process is killed and restarted")
            message, descriptor = received
            match message:
                case OpenedMessage(fps, _):
                    self._opened(message)
                    limit = max(self._patience.silence, 3 / fps if fps else 0.0)
                case RingMade():
                    memory = mapped(descriptor, message)
                case FrameMessage(seq=seq):
                    memory = check_place(message, memory, channel)
                    self._seq = max(self._seq, base + seq + 1)
                    yield frame_of(message, memory, channel, base + seq, self.uri)
                case SkippedMessage(seq, reason, detail):
                    self._check_reason(reason)
                    self._seq = max(self._seq, base + seq + 1)
                    yield Skipped(base + seq, reason, self._named(detail))
                case Ended():
                    return self._ended(message)
                case _:
                    assert_never(message)

    def _opened(self, message: OpenedMessage) -> None:
        if self._open:
            raise BadMessage("two messages that the source is open")
        self.fps, self.length, self._open, self._was_open = message.fps, message.length, True, True
        self._report("camera_open", self.uri)

    def _check_reason(self, reason: str) -> None:
        self._reasons.add(reason)
        if len(self._reasons) > MAX_REASONS:
            self._reasons.discard(reason)
            raise BadMessage(f"'{reason}', more than {MAX_REASONS} different skip reasons")

    def _ended(self, message: Ended) -> tuple[str, SpatialNetError] | None:
        """The event and error for the end of a source; None at its own end.

        Raises:
            SourceRefused: it can never be opened. This is not accepted from a source that was open before.
        """
        detail = self._named(message.detail)
        match message.reason:
            case "":
                return None
            case "unusable" if not self._was_open:
                raise SourceRefused(detail)
            case "refused":
                return "camera_absent", SourceRefused(detail)
            case "lost" | "unusable":
                return "camera_lost", SourceLost(detail or f"{self.uri}: its capture process ended unexpectedly")


def capture_command(descriptor: int) -> list[str]:
    """The command that starts a capture process with this end of the connection."""
    return [sys.executable, "-m", "spatialnet_edge.sources.capture_process", str(descriptor), str(os.getpid())]


def receive(channel: socket.socket, limit: float) -> tuple[Message, int] | None:
    """The next message and the descriptor of a `RingMade` (else -1); None after `limit` seconds of silence.

    Raises:
        BadMessage: too long, not a message of the protocol, or with unexpected descriptors; all of them are closed.
    """
    ready = select.poll()  # select(2) does not support descriptors above 1023
    ready.register(channel, select.POLLIN)
    if not ready.poll(limit * 1000):
        return None
    try:
        content, descriptors, flags = receive_whole(channel)
    except OSError:
        return Ended("lost"), -1
    try:
        if flags & socket.MSG_TRUNC:
            raise BadMessage(f"a message of more than {MAX_MESSAGE} bytes")
        message = decode_message(content) if content else Ended("lost")
        if flags & socket.MSG_CTRUNC or len(descriptors) != isinstance(message, RingMade):
            raise BadMessage(
                f"{len(descriptors)} descriptors with a {type(message).__name__}; a ring has one, others have none"
            )
    except (BadMessage, msgspec.DecodeError, RecursionError) as error:
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(error, BadMessage):
            raise
        raise BadMessage(f"bytes that are not a message of the protocol ({first_line(error)})") from error
    return message, descriptors[0] if descriptors else -1


def receive_whole(channel: socket.socket) -> tuple[bytes, list[int], int]:
    """Receive one message with its descriptors and the flags of recvmsg(2)."""
    space = socket.CMSG_SPACE(array.array("i").itemsize)
    try:
        content, ancillary, flags, _ = channel.recvmsg(MAX_MESSAGE, space, socket.MSG_CMSG_CLOEXEC)
    except (
        ConnectionResetError
    ):  # the peer closed with our data unread: ECONNRESET is raised once; queued messages remain readable
        content, ancillary, flags, _ = channel.recvmsg(MAX_MESSAGE, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return content, list(descriptors), flags


def mapped(descriptor: int, made: RingMade) -> Memory:
    """Map the ring of a message and close its descriptor."""
    try:
        return map_memory(descriptor, made)
    finally:
        os.close(descriptor)
