"""INT8 by NVIDIA's Model Optimizer (`nvidia-modelopt`), where that is installed: one more candidate for the gates.

It chooses the layers and the ranges itself (entropy), and casts what is left to FP16. It replaces parts of ONNX Runtime's quantiser
in the process that imports it, so it runs in a process of its own. API: NVIDIA, Model Optimizer documentation,
`modelopt.onnx.quantization.quantize`; tried with release 0.47.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import BuildError
from spatialnet_edge.core.spec import IMAGE_INPUT

TIMEOUT_S = 900


def installed() -> bool:
    """Whether `nvidia-modelopt` is installed here."""
    return find_spec("modelopt") is not None


def int8_modelopt(content: bytes, images: NDArray[np.uint8]) -> bytes:
    """Explicit INT8 with Q/DQ, as Model Optimizer lays it out for TensorRT.

    Args:
        images: real ones, uint8 `[N, H, W, bands]` at the model's size.

    Raises:
        BuildError: it failed; with the last line that it wrote.
    """
    with TemporaryDirectory() as folder:
        Path(folder, "model.onnx").write_bytes(content)
        np.save(Path(folder, "images.npy"), images)
        done = subprocess.run(
            [sys.executable, "-m", __name__, folder], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        made = Path(folder, "int8.onnx")
        if done.returncode or not made.exists():
            said = done.stderr.strip().splitlines()
            raise BuildError(f"NVIDIA's Model Optimizer failed: {said[-1] if said else 'it wrote nothing'}")
        return made.read_bytes()


def main(folder: Path) -> None:
    """Quantise `model.onnx` to `int8.onnx` with `images.npy`."""
    quantization: Any = __import__("modelopt.onnx.quantization", fromlist=["quantize"])
    quantization.quantize(
        str(folder / "model.onnx"),
        quantize_mode="int8",
        calibration_data={IMAGE_INPUT: np.load(folder / "images.npy")},
        calibration_method="entropy",
        calibration_eps=["cpu"],
        op_types_to_quantize=["Conv", "MatMul"],
        high_precision_dtype="fp16",
        output_path=str(folder / "int8.onnx"),
        log_level="ERROR",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
