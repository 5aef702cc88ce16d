"""A simulated camera with scripted faults, to test how a payload reacts.

`faulty:ok*30,frozen*5,lost|hang|ok*100` runs one script per opening, in order; the last one is repeated. The file named by
`FAULTY_STATE` keeps the number of the next script. Steps:

| step | what happens |
|---|---|
| `ok`, `frozen`, `wide` | a frame; the previous frame again; a frame of another size |
| `empty`, `grey`, `deep`, `again` | a frame of 0×0; grey; of 16 bits; with the previous frame's number |
| `absent`, `slow` | at open: no such camera; opening takes 60 s |
| `hang`, `crash`, `lost` | `read()` never returns; the process dies of SIGSEGV; the camera reports that it is disconnected |
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import SourceLost, SourceRefused
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.sources.opencv_frames import checked_frame
from spatialnet_edge.sources.source_options import parse_script

STATE_VARIABLE = "FAULTY_STATE"
INTERVAL_S = 0.01
HEIGHT, WIDTH = 48, 64


@final
class FaultySource:
    """A simulated camera; the module documents its scripts."""

    live = True
    length = None
    fps = None

    def __init__(self, rest: str) -> None:
        self.uri = f"faulty:{rest}"
        scripts = parse_script(rest)
        state = Path(os.environ.get(STATE_VARIABLE) or os.devnull)
        lives = int(state.read_text() or 0) if state.is_file() else 0
        if state != Path(os.devnull):
            state.write_text(str(lives + 1))
        self._steps = scripts[min(lives, len(scripts) - 1)]
        first, _ = self._steps[0]
        if first == "absent":
            raise SourceRefused(f"{self.uri}: no such camera")
        if first == "slow":
            time.sleep(60)

    def __iter__(self) -> Iterator[Frame | Skipped]:
        seq = -1
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        noise = np.random.default_rng(0)
        for name, times in self._steps:
            for _ in range(times):
                time.sleep(INTERVAL_S)
                seq += name != "again"
                if name in ("ok", "again"):
                    image = noise.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
                yield checked_frame(self._picture(name, image, noise), seq, self.uri)

    def _picture(self, name: str, image: NDArray[Any], noise: np.random.Generator) -> NDArray[Any]:
        match name:
            case "ok" | "again" | "frozen":
                return image
            case "empty":
                return image[:0]
            case "grey":
                return image[..., 0]
            case "deep":
                return image.astype(np.uint16) << 8
            case "wide":
                return noise.integers(0, 256, (HEIGHT * 2, WIDTH * 2, 3), np.uint8)
            case "hang":
                time.sleep(3600)
            case "crash":
                signal.signal(signal.SIGSEGV, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGSEGV)
            case "lost":
                raise SourceLost(f"{self.uri}: unplugged")
            case _:
                raise SourceRefused(f"{self.uri}: '{name}' must be the first step")
        return image

    def close(self) -> None:
        pass
