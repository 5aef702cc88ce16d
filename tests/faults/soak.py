"""Soak test: a million frames in a separate process, with the growth of its resources.

    python tests/faults/soak.py FRAMES LEAK

FRAMES go through a session: capture, policy, resize, a fast engine, smoothing, decoding, a bounded queue and a journal
under a cap. LEAK bytes per frame are leaked on purpose. Prints one JSON object: growth of resident memory (bytes), of
descriptors and of threads.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.core.spec import RGB, InputSpec, ModelSpec, Multilabel
from spatialnet_edge.engines.fake import FakeEngine
from spatialnet_edge.engines.registry import FALLBACK, CheckedEngine, LoadedEngine
from spatialnet_edge.runtime.golden import GoldenVectors
from spatialnet_edge.runtime.options import StreamOptions
from spatialnet_edge.runtime.session import Session

SPEC = ModelSpec(
    name="soak",
    input=InputSpec(height=8, width=8, groups=(RGB,)),
    heads=(Multilabel(name="shade", labels=("bright",), thresholds=(0.5,)),),
)
SETTLED = 50_000
"""Number of warm-up frames for caches, pools and the allocator."""


class Frames:
    """Frames of 12×12 pixels, each different from the last."""

    uri, length, fps, live = "soak", None, None, False

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Frame | Skipped]:
        pictures = np.random.default_rng(0).integers(30, 200, (64, 12, 12, 3), np.uint8)
        for seq in range(self.count):
            if seq % 1000 == 999:
                yield Skipped(seq, "decode_error", "one in a thousand")
            else:
                yield Frame(pictures[seq % 64], seq, "soak")

    def close(self) -> None:
        pass


def taken(process: psutil.Process) -> tuple[int, int, int]:
    """Resident bytes, descriptors and threads."""
    gc.collect()
    return process.memory_info().rss, process.num_fds(), threading.active_count()


def no_golden_frames() -> GoldenVectors:
    """The fake engine has no bundle."""
    return GoldenVectors(Path("none"), SPEC, np.empty((0, 8, 8, 3), np.uint8), {}, 1.0)


def main(frames: int, leak: int) -> None:
    process = psutil.Process()
    leaked: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder:
        before = after = (0, 0, 0)
        last = frames - frames // 1000 - 1
        started = time.monotonic()
        session = Session(LoadedEngine(CheckedEngine(FakeEngine(SPEC)), FALLBACK, ()), no_golden_frames())
        log = f"log:{Path(folder) / 'log'}?segment_mb=1&total_mb=4"
        results = session.open_stream(Frames(frames), StreamOptions(smoothing_s=0.2), sinks=[log])
        for number, _ in enumerate(results):
            if leak:
                leaked.append(bytes(leak))
            if number == SETTLED:
                before = taken(process)
            elif number == last:  # while everything is still open, as in the first measurement
                after = taken(process)
        seconds = time.monotonic() - started
        session.close()
    growth = dict(zip(("rss", "descriptors", "threads"), (b - a for a, b in zip(before, after, strict=True)), strict=True))
    ledger = results.stats.to_dict()
    print(json.dumps({"seconds": round(seconds, 1), "growth": growth, "children": len(process.children()), "ledger": ledger}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
