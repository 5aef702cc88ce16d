"""INT8 layouts of a graph, and a request for training. A separate module, because a compiling device does not have onnx."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Scheme = Literal["cpu", "tensorrt"]
"""`cpu`: for ONNX Runtime's kernels. `tensorrt`: explicit Q/DQ for NVIDIA's parsers."""


@dataclass(frozen=True, slots=True)
class QatRequest:
    """Which checkpoint to train with rounded layers, and for how many epochs."""

    checkpoint: Path
    epochs: int
