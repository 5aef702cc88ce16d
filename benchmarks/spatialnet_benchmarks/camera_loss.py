"""Lose a camera a thousand times: time to detect the loss, time to recover, leaked memory, descriptors and threads.

    python -m spatialnet_benchmarks.camera_loss [CYCLES]

Losses alternate between a hang and an end of the stream.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from spatialnet_edge.core.frames import Frame
from spatialnet_edge.sources.faulty import STATE_VARIABLE
from spatialnet_edge.sources.supervised import SupervisedSource, Timeouts

FRAMES = 3


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    cycles = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seen: list[float] = []
    back: list[float] = []
    last = lost = time.monotonic()

    def report(kind: str, detail: str) -> None:
        nonlocal lost
        if kind in ("camera_lost", "camera_hung"):
            lost = time.monotonic()
            seen.append(lost - last)
            lives.write_text(str(len(seen) % 2 if len(seen) < cycles else 2))

    with tempfile.TemporaryDirectory() as folder:
        lives = Path(folder) / "lives"
        os.environ[STATE_VARIABLE] = str(lives)
        source = SupervisedSource(f"faulty:ok*{FRAMES},lost|ok*{FRAMES},hang|ok*100", Timeouts(), report)
        before = (0, 0, 0)
        for count, item in enumerate(source, start=1):
            assert isinstance(item, Frame)
            last = time.monotonic()
            if count % FRAMES == 1 and count > 1 and len(back) < len(seen):
                back.append(last - lost)
            if count == 10 * FRAMES:
                gc.collect()
                before = (resident_bytes(), len(os.listdir("/proc/self/fd")), threading.active_count())
            if count >= FRAMES * cycles + 5:
                break
        after = (resident_bytes(), len(os.listdir("/proc/self/fd")), threading.active_count())
        source.close()
    print(
        json.dumps(
            {
                "cycles": len(seen),
                "loss seen, s": {"median": round(float(np.median(seen)), 3), "longest": round(max(seen), 3)},
                "frames back, s": {"median": round(float(np.median(back)), 3), "longest": round(max(back), 3)},
                "growth": dict(
                    zip(("resident bytes", "descriptors", "threads"), np.subtract(after, before).tolist(), strict=True)
                ),
            }
        )
    )


if __name__ == "__main__":
    main()
