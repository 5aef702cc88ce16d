"""The capture process: it reads a camera, so that a hanging or crashing driver affects no other process.

`supervised.py` starts it as `python -m spatialnet_edge.sources.capture_process DESCRIPTOR PARENT`, with a socket and the
process id of the runtime. The URI is sent through the socket.
"""

from __future__ import annotations

import array
import ctypes
import os
import signal
import socket
import sys
import time
import zlib
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import BrokenLibrary, NotInstalled, Refused, SpatialNetError, UsageError
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.sources.registry import DecodesInPlace, Source, open_source
from spatialnet_edge.sources.shm_transport import (
    FPS_RANGE,
    MAX_DETAIL,
    MAX_MESSAGE,
    MAX_SLOT_BYTES,
    SLOTS,
    Ended,
    FrameMessage,
    Memory,
    OpenedMessage,
    RingMade,
    SkippedMessage,
    decode_open,
    decode_release,
    encode,
    make_memory,
)

FROZEN_LIMIT_S = 10.0
"""Seconds of identical pictures after which a camera counts as frozen and is reopened."""
FROZEN_ROWS = 8
"""Every Nth row is compared; sensor noise makes any two pictures differ in all rows."""
PR_SET_PDEATHSIG = 1


@final
class FrozenDetector:
    """Detects a picture that equals the previous one bit for bit; a live sensor never repeats a picture."""

    def __init__(self) -> None:
        self._seen = -1
        self.since = time.monotonic()

    def is_frozen(self, pixels: NDArray[np.uint8]) -> bool:
        now = zlib.adler32(np.ascontiguousarray(pixels[::FROZEN_ROWS]).data)
        if now == self._seen:
            return True
        self._seen = now
        self.since = time.monotonic()
        return False


@final
class Sender:
    """Writes frames into free slots and sends messages.

    Args:
        wait: without a free slot, wait for one (for a recording); otherwise the frame is skipped as `overrun`.
    """

    def __init__(self, channel: socket.socket, wait: bool) -> None:
        self._channel = channel
        self._wait = wait
        self._memory: Memory | None = None
        self._free: list[int] = []

    def place(self, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
        """Memory for the next picture, so that it can be decoded in place; None if no slot is free or large enough."""
        self._take_back()
        memory = self._memory
        if memory is None or not self._free or int(np.prod(shape)) > memory.slot_bytes:
            return None
        return memory.view(self._free[-1], shape)

    def send(self, frame: Frame) -> None:
        stored = frame.image if isinstance(frame.image, np.ndarray) else frame.image.rgb()
        if stored.dtype != np.uint8 or stored.ndim != 3 or not 0 < stored.nbytes <= MAX_SLOT_BYTES:
            expected = f"uint8 (H, W, bands) of 1 to {MAX_SLOT_BYTES} bytes"
            self.give_up(
                Skipped(frame.seq, "format", f"frame {frame.seq} is {stored.dtype} {stored.shape}; expected {expected}")
            )
            return
        memory = self._memory
        if memory is None or stored.nbytes > memory.slot_bytes:
            memory = self._new_ring(stored.nbytes)
        self._take_back(wait=self._wait)
        if not self._free:
            self.give_up(Skipped(frame.seq, "overrun", "every slot is in use: a sink keeps frames"))
            return
        slot = self._free.pop()
        target = memory.view(slot, stored.shape)
        if stored.ctypes.data != target.ctypes.data:
            target[...] = stored
        pose = None
        if frame.pose is not None:
            pose = tuple(getattr(frame.pose, name) for name in frame.pose.__slots__)
        height, width, bands = stored.shape
        message = FrameMessage(
            memory.generation, slot, frame.seq, (height, width, bands), frame.pixel_format,
            frame.captured_ns, frame.captured_unix, frame.media_time_s, pose, frame.footprint,
            frame.note and frame.note[:MAX_DETAIL],
        )  # fmt: skip
        self._channel.send(encode(message))

    def give_up(self, skipped: Skipped) -> None:
        self._channel.send(encode(SkippedMessage(skipped.seq, skipped.reason, skipped.detail[:MAX_DETAIL])))

    def _new_ring(self, slot_bytes: int) -> Memory:
        generation = 0 if self._memory is None else self._memory.generation + 1
        self._memory, descriptor = make_memory(slot_bytes, generation)
        self._free = list(range(SLOTS))
        message = encode(RingMade(generation, slot_bytes))
        self._channel.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))])
        os.close(descriptor)
        return self._memory

    def _take_back(self, wait: bool = False) -> None:
        while True:
            try:
                message = self._channel.recv(4096, 0 if wait and not self._free else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if not message:
                raise BrokenPipeError("the runtime has ended")
            release = decode_release(message)
            if self._memory is not None and release.generation == self._memory.generation:
                self._free.append(release.slot)


def deliver(source: Source, sender: Sender) -> Ended:
    """Send everything from a source until it ends."""
    detector = FrozenDetector()
    for item in source:
        if isinstance(item, Skipped):
            sender.give_up(item)
        elif source.live and detector.is_frozen(item.pixels):
            frozen_s = time.monotonic() - detector.since
            if frozen_s > FROZEN_LIMIT_S:
                return Ended("lost", f"{source.uri}: the same picture for {frozen_s:.0f} s")
            sender.give_up(Skipped(item.seq, "frozen", f"{source.uri}: frame {item.seq} equals the previous one, bit for bit"))
        else:
            sender.send(item)
    return Ended()


def die_with_parent(parent: int) -> None:
    """Let the kernel end this process when the runtime ends for any reason (prctl(2), PR_SET_PDEATHSIG).

    Args:
        parent: the runtime's process id. If the runtime ended before this call, there is no signal any more; then this process
            has another parent and exits here.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def believable(fps: float | None) -> float | None:
    """A driver's frames per second; None for an invalid value such as NaN."""
    return fps if fps is not None and FPS_RANGE[0] <= fps <= FPS_RANGE[1] else None


def reason_of(error: SpatialNetError) -> Literal["lost", "refused", "unusable"]:
    """The reason with which an error ends the source; see `Ended`."""
    if isinstance(error, NotInstalled | BrokenLibrary | UsageError):
        return "unusable"
    return "refused" if isinstance(error, Refused) else "lost"


def main(descriptor: int, parent: int) -> None:
    die_with_parent(parent)
    channel = socket.socket(fileno=descriptor)
    try:
        source = open_source(os.fsdecode(decode_open(channel.recv(MAX_MESSAGE)).uri))
        sender = Sender(channel, wait=not source.live)
        if isinstance(source, DecodesInPlace):
            source.place = sender.place
        channel.send(encode(OpenedMessage(believable(source.fps), source.length)))
        end = deliver(source, sender)
    except BrokenPipeError:
        return
    except SpatialNetError as error:
        end = Ended(reason_of(error), str(error)[:MAX_DETAIL])
    channel.send(encode(end))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
