"""Transport of frames between processes: pixels in shared memory, and small messages that refer to them.

The capture process makes a ring of slots (`memfd_create(2)`) and passes its descriptor over a socket (SCM_RIGHTS). It writes a
frame into a free slot and sends a message. The runtime reads the slot as an array, without copying; when the last array on it
is deleted, the slot is released. Nothing has a name in the file system, so nothing is left behind when a process is killed.

The runtime does not trust the capture process, which runs drivers and decoders on untrusted data. Types and
ranges of a message are checked when it is decoded, the memory when it is mapped, and the position of a frame before it is
read.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import time
from contextlib import suppress
from functools import partial
from typing import Annotated, Literal, TypeAlias, final

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from spatialnet_edge.core.frames import Frame, PixelFormat, Pose
from spatialnet_edge.sources.buffer_lease import lend

SLOTS = 24
"""Number of slots: the frames in the queue, in the engine and in the sinks that draw on them."""
MAX_MESSAGE = 65536
MAX_SLOT_BYTES = 512 << 20
"""Limit of bytes per slot. The largest picture that is decoded at once takes half of it."""
MAX_DETAIL = 4000
"""Limit of characters of a text for people."""
FPS_RANGE = (1 / 3600, 1e6)
"""Plausible frame rates. Drivers are known to report 0, -1 or NaN; other values are ignored."""

Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Number: TypeAlias = Annotated[int, Meta(ge=0, lt=2**32)]
Slot: TypeAlias = Annotated[int, Meta(ge=0, lt=SLOTS)]
Side: TypeAlias = Annotated[int, Meta(ge=1, lt=2**31)]
Finite: TypeAlias = Annotated[float, Meta(ge=-1e12, le=1e12)]
"""A number with a range; this refuses NaN and infinities, which msgpack can carry."""
Latitude: TypeAlias = Annotated[float, Meta(ge=-90, le=90)]
Longitude: TypeAlias = Annotated[float, Meta(ge=-180, le=180)]
OutlineLongitude: TypeAlias = Annotated[float, Meta(ge=-720, le=720)]
UnixTime: TypeAlias = Annotated[float, Meta(ge=0, le=1e11)]
Detail: TypeAlias = Annotated[str, Meta(max_length=MAX_DETAIL)]
SkipReason: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}\Z")]


class BadMessage(Exception):
    """The other process broke the protocol; the text has what was found and what was expected."""


class OpenMessage(msgspec.Struct, tag=True, frozen=True):
    """First message to the capture process: the source to open, as bytes, because a file's name may not be UTF-8."""

    uri: bytes


class OpenedMessage(msgspec.Struct, tag=True, frozen=True):
    """The source is open."""

    fps: Annotated[float, Meta(ge=FPS_RANGE[0], le=FPS_RANGE[1])] | None
    length: Count | None


class RingMade(msgspec.Struct, tag=True, frozen=True):
    """A new ring, because there was none or its slots were too small. Its descriptor is sent with the message."""

    generation: Number
    slot_bytes: Annotated[int, Meta(ge=1, le=MAX_SLOT_BYTES)]


class FrameMessage(msgspec.Struct, tag=True, frozen=True):
    """A frame is in a slot."""

    generation: Number
    slot: Slot
    seq: Number
    shape: tuple[Side, Side, Side]
    pixel_format: PixelFormat
    captured_ns: Count
    captured_unix: UnixTime
    media_time_s: Finite | None
    pose: tuple[Latitude, Longitude, Finite | None, Finite | None, Finite | None, Finite | None] | None
    footprint: tuple[tuple[OutlineLongitude, Latitude], ...] = ()
    note: Detail | None = None


class SkippedMessage(msgspec.Struct, tag=True, frozen=True):
    """A frame that could not be used."""

    seq: Number
    reason: SkipReason
    detail: Detail


class Ended(msgspec.Struct, tag=True, frozen=True):
    """The source ended: at its own end (`reason` empty), `lost`, `refused`, or `unusable` (a retry would not help)."""

    reason: Literal["", "lost", "refused", "unusable"] = ""
    detail: Detail = ""


class Release(msgspec.Struct, tag=True, frozen=True):
    """To the capture process: this slot is free again."""

    generation: Number
    slot: Slot


Message: TypeAlias = OpenedMessage | RingMade | FrameMessage | SkippedMessage | Ended
encode = msgspec.msgpack.Encoder().encode
decode_message = msgspec.msgpack.Decoder(Message).decode
decode_open = msgspec.msgpack.Decoder(OpenMessage).decode
decode_release = msgspec.msgpack.Decoder(Release).decode


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection that preserves message boundaries and reports a closed peer (unix(7), SOCK_SEQPACKET)."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@final
class Memory:
    """The memory of a ring, mapped until its last slot is released."""

    def __init__(self, descriptor: int, slot_bytes: int, generation: int, access: int = mmap.ACCESS_WRITE) -> None:
        self.slot_bytes = slot_bytes
        self.generation = generation
        self.map = mmap.mmap(descriptor, SLOTS * slot_bytes, access=access)

    def view(self, slot: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """A slot as an array; writable if the memory is."""
        return np.ndarray(shape, np.uint8, self.map, slot * self.slot_bytes)


def seals() -> int:
    """Seals that fix the size of the memory, so that reading it cannot cause SIGBUS (fcntl(2), file sealing)."""
    return fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def make_memory(slot_bytes: int, generation: int) -> tuple[Memory, int]:
    """A new ring, and the descriptor with which the other process maps it."""
    descriptor = os.memfd_create("spatialnet-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, SLOTS * slot_bytes)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals())
    return Memory(descriptor, slot_bytes, generation), descriptor


def map_memory(descriptor: int, made: RingMade) -> Memory:
    """Map a ring of another process for reading.

    Raises:
        BadMessage: no descriptor, unsealed memory, huge pages, another size, or mapping failed.
    """
    if descriptor < 0:
        raise BadMessage("a ring without the descriptor of its memory")
    wanted = SLOTS * made.slot_bytes
    try:
        sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & seals() == seals()
        page, size = os.fstatvfs(descriptor).f_bsize, os.fstat(descriptor).st_size
        if not sealed:
            raise BadMessage("a ring whose memory is not sealed: it could shrink while it is read")
        if page != mmap.PAGESIZE:  # reading a hole can lack huge pages, which causes SIGBUS as well
            raise BadMessage(f"a ring on pages of {page} bytes; expected {mmap.PAGESIZE}")
        if size != wanted:
            raise BadMessage(f"a ring of {size} bytes; expected {wanted}, {SLOTS} slots of {made.slot_bytes}")
        return Memory(descriptor, made.slot_bytes, made.generation, mmap.ACCESS_READ)
    except (OSError, ValueError, OverflowError) as error:
        raise BadMessage(f"a ring whose memory cannot be mapped: {error}") from error


@final
class Channel:
    """Our end of the connection; open while the stream or any frame uses it.

    Attributes:
        lent: (generation, slot) of every frame that is still in use.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.lent: set[tuple[int, int]] = set()

    def release(self, generation: int, slot: int) -> None:
        self.lent.discard((generation, slot))
        with suppress(OSError):  # the capture process and its ring may be gone
            self.connection.send(encode(Release(generation, slot)), socket.MSG_DONTWAIT)

    def __del__(self) -> None:
        self.connection.close()


def check_place(message: FrameMessage, memory: Memory | None, channel: Channel) -> Memory:
    """Find the memory of a frame.

    Raises:
        BadMessage: the frame does not fit its slot, the slot is still in use, or the capture time is in the future.
    """
    if memory is None or message.generation != memory.generation:
        found = "none" if memory is None else memory.generation
        raise BadMessage(f"a frame in ring {message.generation}; the ring is {found}")
    height, width, bands = message.shape
    if height * width * bands > memory.slot_bytes:
        raise BadMessage(f"a frame of shape {message.shape} in a slot of {memory.slot_bytes} bytes")
    if message.pixel_format == "bgr24" and bands != 3:
        raise BadMessage(f"a frame of shape {message.shape} as bgr24, which has 3 bands")
    if message.captured_ns > time.monotonic_ns():
        raise BadMessage(f"a frame captured in the future, at {message.captured_ns} ns of the monotonic clock")
    if (message.generation, message.slot) in channel.lent:
        raise BadMessage(f"a frame in slot {message.slot}, which is still in use")
    return memory


def frame_of(message: FrameMessage, memory: Memory, channel: Channel, seq: int, source: str) -> Frame:
    """The frame of a message, on shared memory; call `check_place` first."""
    place = (message.generation, message.slot)
    channel.lent.add(place)
    pixels = lend(memory.view(message.slot, message.shape), partial(channel.release, *place))
    pose = None if message.pose is None else Pose(*message.pose)
    return Frame(
        pixels, seq, source, message.captured_ns, message.captured_unix, message.media_time_s, pose, message.footprint,
        message.pixel_format, message.note,
    )  # fmt: skip
