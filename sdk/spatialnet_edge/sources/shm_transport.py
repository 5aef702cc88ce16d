"""Frames between two processes: pixels lie in shared memory, and small messages say where.

The capture process makes a ring of slots (`memfd_create(2)`) and passes it over a socket (SCM_RIGHTS); it writes a frame into a
free slot and sends a message. The runtime sees the slot as an array, without copying; when the last array on it is gone, the slot
goes back. Nothing has a name in the file system, so nothing is left over when either process is killed.
"""

from __future__ import annotations

import mmap
import os
import socket
from contextlib import suppress
from functools import partial
from typing import TypeAlias, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.frames import Frame, PixelFormat, Pose
from spatialnet_edge.sources.buffer_lease import lend

SLOTS = 24
"""Frames that may be on their way at once: in the queue, in the engine and in the sinks that draw on them."""
MAX_MESSAGE = 65536


class OpenMessage(msgspec.Struct, tag=True, frozen=True):
    """To the capture process, first of all: the source to open, as bytes, since a file's name need not be UTF-8."""

    uri: bytes


class OpenedMessage(msgspec.Struct, tag=True, frozen=True):
    """The source is open."""

    fps: float | None
    length: int | None


class RingMade(msgspec.Struct, tag=True, frozen=True):
    """A new ring, because there was none or its slots were too small; its descriptor travels along."""

    generation: int
    slot_bytes: int


class FrameMessage(msgspec.Struct, tag=True, frozen=True):
    """A frame lies in a slot."""

    generation: int
    slot: int
    seq: int
    shape: tuple[int, int, int]
    pixel_format: PixelFormat
    captured_ns: int
    captured_unix: float
    media_time_s: float | None
    pose: tuple[float | None, ...] | None
    footprint: tuple[tuple[float, float], ...] = ()
    note: str | None = None


class SkippedMessage(msgspec.Struct, tag=True, frozen=True):
    """A frame that could not be used."""

    seq: int
    reason: str
    detail: str


class Ended(msgspec.Struct, tag=True, frozen=True):
    """The source ended: by itself (`reason` empty), `lost`, `refused`, or `unusable`: trying again would not help."""

    reason: str = ""
    detail: str = ""


class Release(msgspec.Struct, tag=True, frozen=True):
    """To the capture process: this slot is free again."""

    generation: int
    slot: int


Message: TypeAlias = OpenedMessage | RingMade | FrameMessage | SkippedMessage | Ended
encode = msgspec.msgpack.Encoder().encode
decode_message = msgspec.msgpack.Decoder(Message).decode
decode_open = msgspec.msgpack.Decoder(OpenMessage).decode
decode_release = msgspec.msgpack.Decoder(Release).decode


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection that keeps messages whole and says when the other end is gone (unix(7), SOCK_SEQPACKET)."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@final
class Memory:
    """The bytes of a ring, mapped until the last slot on it is gone."""

    def __init__(self, descriptor: int, slot_bytes: int, generation: int) -> None:
        self.slot_bytes = slot_bytes
        self.generation = generation
        self.map = mmap.mmap(descriptor, SLOTS * slot_bytes)

    def view(self, slot: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """A slot as an array that may be written."""
        return np.ndarray(shape, np.uint8, self.map, slot * self.slot_bytes)


def make_memory(slot_bytes: int, generation: int) -> tuple[Memory, int]:
    """A new ring and the descriptor by which the other process maps it."""
    descriptor = os.memfd_create("spatialnet-frames", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, SLOTS * slot_bytes)
    return Memory(descriptor, slot_bytes, generation), descriptor


@final
class Channel:
    """Our end of the connection; open as long as the stream or any frame needs it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def release(self, generation: int, slot: int) -> None:
        with suppress(OSError):  # the capture process may be gone, and its ring with it
            self.connection.send(encode(Release(generation, slot)), socket.MSG_DONTWAIT)

    def __del__(self) -> None:
        self.connection.close()


def frame_of(message: FrameMessage, memory: Memory, channel: Channel, seq: int, source: str) -> Frame:
    """The frame that a message speaks of, on shared memory."""
    slot = memory.view(message.slot, message.shape)
    slot.flags.writeable = False
    pixels = lend(slot, partial(channel.release, memory.generation, message.slot))
    pose = None if message.pose is None else Pose(*message.pose)  # pyright: ignore[reportArgumentType]
    return Frame(
        pixels, seq, source, message.captured_ns, message.captured_unix, message.media_time_s, pose, message.footprint,
        message.pixel_format, message.note,
    )  # fmt: skip
