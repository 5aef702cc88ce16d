"""A compromised or broken capture process, and one whose runtime ends: the runtime continues, and nothing is left behind."""

import gc
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.sources import supervised
from spatialnet_edge.sources.capture_process import Sender, believable
from spatialnet_edge.sources.shm_transport import SLOTS, SkippedMessage, make_memory, socket_pair
from spatialnet_edge.sources.supervised import SupervisedSource, Timeouts, capture_command, receive

HOSTILE = Path(__file__).with_name("hostile_capture.py")
QUICK = Timeouts(opening=20, silence=10, first_wait=0.01, longest_wait=0.01)

TRICKS = {
    "shrinks": "not sealed",
    "half sealed": "not sealed",
    "too small": "a ring of 4096 bytes; expected",
    "no memory": "0 descriptors with a RingMade",
    "plain file": "cannot be mapped",
    "two descriptors": "2 descriptors with a RingMade",
    "no ring": "the ring is none",
    "garbage": "not a message of the protocol",
    "huge message": "a message of more than 65536 bytes",
    "reasons": "more than 32 different skip reasons",
    "markup": "not a message of the protocol",
    "unusable": "a lie",
    "fps": "not a message of the protocol",
    "slot -1": "not a message of the protocol (Expected `int` >= 0 - at `$.slot`)",
    "slot 999": "not a message of the protocol (Expected `int` <= 23 - at `$.slot`)",
    "too large": "a frame of shape (100000, 64, 3) in a slot of 9216 bytes",
    "negative side": "not a message of the protocol (Expected `int` >= 1 - at `$.shape[0]`)",
    "future": "captured in the future",
    "slot in use": "slot 0, which is still in use",
    "numbers": "numbers went back",
}
"""Attack of a compromised capture process, and the reported reason."""


def hostile_first(monkeypatch: pytest.MonkeyPatch, tricks: list[str]) -> None:
    """The first capture processes perform these attacks; later ones are real."""
    left = iter(tricks)

    def command(descriptor: int) -> list[str]:
        trick = next(left, None)
        return capture_command(descriptor) if trick is None else [sys.executable, str(HOSTILE), str(descriptor), trick]

    monkeypatch.setattr(supervised, "capture_command", command)


@pytest.mark.fault(56)
def test_a_compromised_capture_process_is_killed_and_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attack is a `camera_lost` with its reason; frames are read at the end, when memory may have shrunk."""
    hostile_first(monkeypatch, list(TRICKS))
    process = psutil.Process()
    gc.collect()
    before = process.num_fds()
    events: list[tuple[str, str]] = []
    source = SupervisedSource("faulty:ok*50", QUICK, lambda kind, detail: events.append((kind, detail)))
    items: list[Frame | Skipped] = []
    for item in source:
        items.append(item)
        if isinstance(item, Frame) and events[-1][0] == "camera_open" and len(events) > 2 * len(TRICKS):
            source.close()
    assert [kind for kind, _ in events] == ["camera_open", "camera_lost"] * len(TRICKS) + ["camera_open"]
    for (trick, said), (_, detail) in zip(TRICKS.items(), events[1::2], strict=False):
        assert said in detail, trick
    assert isinstance(items[-1], Frame)
    assert items[-1].seq > max(item.seq for item in items[:-1])  # although numbers decreased before the restart
    assert sum(int(item.pixels.sum(dtype=np.int64)) for item in items if isinstance(item, Frame)) > 0
    items.clear()
    del item, source
    gc.collect()
    assert process.num_fds() <= before  # no received descriptor is left open


@pytest.mark.fault(56)
def test_memory_that_is_shared_can_never_shrink() -> None:
    memory, descriptor = make_memory(4096, 0)
    for size in (0, 2 * SLOTS * 4096):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    os.close(descriptor)
    assert memory.view(SLOTS - 1, (4096,)).sum() == 0


@pytest.mark.fault(56)
@pytest.mark.parametrize("image", [np.ones((4, 4, 3), np.float32), np.ones((4, 4, 3), np.uint16), np.ones((4, 4), np.uint8)])
def test_a_frame_of_another_type_is_skipped_not_cast(image: np.ndarray) -> None:
    ours, theirs = socket_pair()
    Sender(theirs, wait=False).send(Frame(image, 7, "tests"))
    received = receive(ours, 1.0)
    ours.close()
    theirs.close()
    assert received is not None
    message, _ = received
    assert isinstance(message, SkippedMessage)
    assert (message.seq, message.reason) == (7, "format")
    assert str(image.dtype) in message.detail


@pytest.mark.fault(56)
def test_an_invalid_frame_rate_of_a_driver_is_ignored() -> None:
    assert [believable(fps) for fps in (30.0, None, 0.0, -1.0, float("nan"), float("inf"))] == [30.0, *[None] * 5]


@pytest.mark.fault(65)
def test_a_capture_process_ends_if_the_runtime_ended_before_its_start(tmp_path: Path) -> None:
    """The runtime is killed right after the start of the capture process, before that requests its parent-death signal."""
    pid = os.fork()
    if pid == 0:
        source = SupervisedSource("faulty:slow")  # opening takes 60 s
        threading.Thread(target=lambda: list(source), daemon=True).start()
        while source._process is None:
            time.sleep(0.001)
        (tmp_path / "child").write_text(str(source._process.pid))
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 15
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    left = alive(child)
    if left:
        os.kill(child, 9)
    assert not left


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
