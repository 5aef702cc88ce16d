"""A compromised capture process: `python hostile_capture.py DESCRIPTOR TRICK`."""

import array
import fcntl
import os
import socket
import sys
import time

from spatialnet_edge.sources.shm_transport import (
    SLOTS,
    Ended,
    FrameMessage,
    OpenedMessage,
    RingMade,
    SkippedMessage,
    encode,
    make_memory,
    seals,
)

SHAPE = (48, 64, 3)
SLOT_BYTES = 48 * 64 * 3


def unsealed(size: int = SLOTS * SLOT_BYTES, sealed: int = 0) -> int:
    descriptor = os.memfd_create("hostile", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    if sealed:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, sealed)
    return descriptor


def frame(slot: int = 0, shape: tuple[int, int, int] = SHAPE, seq: int = 0, ahead_ns: int = 0) -> FrameMessage:
    return FrameMessage(0, slot, seq, shape, "rgb24", time.monotonic_ns() + ahead_ns, time.time(), None, None)


def send(channel: socket.socket, content: bytes, *descriptors: int) -> None:
    channel.sendmsg([content], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else [])


def play(channel: socket.socket, trick: str) -> None:
    ring = encode(RingMade(0, SLOT_BYTES))
    match trick:
        case "shrinks":
            descriptor = unsealed()
            send(channel, ring, descriptor)
            send(channel, encode(frame()))
            time.sleep(0.1)
            os.ftruncate(descriptor, 0)
            time.sleep(60)
        case "half sealed":
            send(channel, ring, unsealed(sealed=fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL))
        case "too small":
            send(channel, ring, unsealed(4096, seals()))
        case "no memory":
            send(channel, ring)
        case "plain file":
            send(channel, ring, os.open(__file__, os.O_RDONLY))
        case "two descriptors":
            send(channel, ring, unsealed(), unsealed())
        case "no ring":
            send(channel, encode(frame()))
        case "garbage":
            send(channel, b"\xff\x00garbage")
        case "huge message":
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            send(channel, bytes(100_000))
        case "reasons":
            for number in range(100):
                send(channel, encode(SkippedMessage(number, f"reason_{number}", "")))
        case "markup":
            send(channel, encode(SkippedMessage(0, "<b>\n", "")))
        case "unusable":
            send(channel, encode(Ended("unusable", "a lie")))
        case "fps":
            send(channel, encode(OpenedMessage(float("nan"), None)))
        case _:
            send(channel, ring, make_memory(SLOT_BYTES, 0)[1])
            in_ring(channel, trick)
    time.sleep(60)


def in_ring(channel: socket.socket, trick: str) -> None:
    """Frames in a valid ring."""
    match trick:
        case "slot -1":
            send(channel, encode(frame(slot=-1)))
        case "slot 999":
            send(channel, encode(frame(slot=999)))
        case "too large":
            send(channel, encode(frame(shape=(100_000, 64, 3))))
        case "negative side":
            send(channel, encode(frame(shape=(-48, -64, 3))))
        case "future":
            send(channel, encode(frame(ahead_ns=10**12)))
        case "slot in use":
            for seq in range(2):
                send(channel, encode(frame(seq=seq)))
        case "numbers":
            send(channel, encode(frame(slot=0, seq=1000)))
            send(channel, encode(frame(slot=1, seq=3)))
            send(channel, encode(Ended("lost", "numbers went back")))
        case _:
            raise ValueError(trick)


if __name__ == "__main__":
    connection = socket.socket(fileno=int(sys.argv[1]))
    send(connection, encode(OpenedMessage(30.0, None)))
    play(connection, sys.argv[2])
