"""Generated frames: no file, no camera, always the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import final

import numpy as np

from spatialnet_edge.core.errors import SourceRefused
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.sources.registry import options_of, size_of

DEFAULTS = {"frames": "300", "size": "640x480", "fps": "0", "seed": "0", "bands": "3"}


@final
class SyntheticSource:
    """`synthetic:frames=300&size=640x480&fps=30&seed=0&bands=3`: smooth coloured fields that move from frame to frame.

    With `fps` the source is live and delivers frames at that rate. Without `fps`, frames are generated as fast as they are
    read.
    """

    def __init__(self, rest: str) -> None:
        self.uri = f"synthetic:{rest}"
        options = options_of(self.uri, rest, DEFAULTS)
        try:
            width, height = size_of(options["size"])
            self.length = int(options["frames"])
            rate = float(options["fps"])
            seed, bands = int(options["seed"]), int(options["bands"])
        except ValueError as error:
            raise SourceRefused(f"{self.uri}: {error}; example: synthetic:frames=300&size=640x480&fps=30") from error
        if not (0 < width <= 16384 and 0 < height <= 16384 and self.length > 0 and 0 <= rate <= 10_000 and 0 < bands <= 64):
            raise SourceRefused(f"{self.uri}: sizes and frames must be positive, fps from 0 to 10000, bands from 1 to 64")
        self.fps = rate or None
        self.live = rate > 0
        coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, bands), np.uint8)
        tile = np.kron(coarse, np.ones((-(-height // 8), -(-width // 8), 1), np.uint8))
        self._field = tile[:height, :width]

    def __iter__(self) -> Iterator[Frame | Skipped]:
        start = time.monotonic()
        for seq in range(self.length):
            if self.fps:
                time.sleep(max(0.0, start + seq / self.fps - time.monotonic()))
            yield Frame(np.roll(self._field, seq, axis=1), seq, self.uri)

    def close(self) -> None:
        pass
