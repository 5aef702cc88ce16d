"""Generated frames: no file, no camera, always the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import final

import numpy as np

from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.sources.source_options import parse_synthetic


@final
class SyntheticSource:
    """`synthetic:frames=300&size=640x480&fps=30&seed=0&bands=3`: smooth coloured fields that move from frame to frame.

    With `fps` the source is live and delivers frames at that rate. Without `fps`, frames are generated as fast as they are
    read.
    """

    def __init__(self, rest: str) -> None:
        self.uri = f"synthetic:{rest}"
        options = parse_synthetic(rest)
        self.length = options.frames
        self.fps = options.fps or None
        self.live = options.fps > 0
        coarse = np.random.default_rng(options.seed).integers(0, 256, (8, 8, options.bands), np.uint8)
        tile = np.kron(coarse, np.ones((-(-options.height // 8), -(-options.width // 8), 1), np.uint8))
        self._field = tile[: options.height, : options.width]

    def __iter__(self) -> Iterator[Frame | Skipped]:
        start = time.monotonic()
        for seq in range(self.length):
            if self.fps:
                time.sleep(max(0.0, start + seq / self.fps - time.monotonic()))
            yield Frame(np.roll(self._field, seq, axis=1), seq, self.uri)

    def close(self) -> None:
        pass
