"""SDKs with their own pipeline, run with the shipped model: Ultralytics and Roboflow Inference."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.utils
from numpy.typing import NDArray
from onnx import TensorProto, helper

from spatialnet_edge.bundle.reader import MODEL, open_bundle
from spatialnet_edge.core.frames import preprocess
from spatialnet_edge.core.spec import IMAGE_INPUT, Multiclass

HEAD = "land_use"
Peer = Callable[[str], list[int]]
"""Function from a clip to the index of the most likely label of each frame."""


def for_ultralytics(content: bytes, side: int, labels: Sequence[str]) -> onnx.ModelProto:
    """The graph in the format of Ultralytics' classifiers: from float32 `[1, 3, side, side]` in 0 to 1 to one row of
    probabilities, with the metadata that its loader reads. The network inside does not change."""
    model = onnx.utils.Extractor(onnx.load_from_string(content)).extract_model([IMAGE_INPUT], [HEAD])
    graph = model.graph
    before = [
        helper.make_node("Mul", ["images", "levels"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["channels_last"], perm=[0, 2, 3, 1]),
        helper.make_node("Round", ["channels_last"], ["whole"]),
        helper.make_node("Cast", ["whole"], [IMAGE_INPUT], to=TensorProto.UINT8),
    ]
    nodes = [*before, *graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.initializer.append(helper.make_tensor("levels", TensorProto.FLOAT, [], [255.0]))
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, side, side]))
    names = str(dict(enumerate(labels)))
    helper.set_model_props(
        model, {"head": "classify", "names": names, "imgsz": str([side, side]), "stride": "32", "batch": "1", "channels": "3"}
    )
    return model


def ultralytics_stream() -> tuple[str, Peer]:
    """`predict(stream=True)` with its ONNX backend, as documented for video."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    import ultralytics  # pyright: ignore[reportMissingImports]

    bundle = open_bundle("builtin:spatialnet-s")
    head = bundle.spec.head(HEAD)
    assert isinstance(head, Multiclass)
    side = bundle.spec.input.height
    path = Path(tempfile.mkdtemp(), "student.onnx")
    onnx.save(for_ultralytics(bundle.read(MODEL), side, head.labels), path)
    network: Any = ultralytics.YOLO(path, task="classify")

    def run(clip: str) -> list[int]:
        results = network.predict(clip, stream=True, imgsz=side, device="cpu", verbose=False)
        return [int(result.probs.top1) for result in results]

    return f"Ultralytics {ultralytics.__version__}, predict(stream=True)", run


def roboflow_pipeline() -> tuple[str, Peer]:
    """`InferencePipeline` for video, with our graph in ONNX Runtime as custom logic, because its own models need its hub."""
    import onnxruntime as ort
    from inference import InferencePipeline  # pyright: ignore[reportMissingImports]

    bundle = open_bundle("builtin:spatialnet-s")
    session: Any = ort.InferenceSession(bundle.read(MODEL), providers=["CPUExecutionProvider"])
    spec = bundle.spec.input

    def infer(frames: list[Any]) -> list[NDArray[np.float32]]:
        pixels = np.stack([preprocess(np.asarray(frame.image, np.uint8)[..., ::-1], spec) for frame in frames])
        return list(session.run([HEAD], {IMAGE_INPUT: pixels})[0])

    def run(clip: str) -> list[int]:
        found: list[int] = []
        pipeline = InferencePipeline.init_with_custom_logic(
            video_reference=clip,
            on_video_frame=infer,
            on_prediction=lambda prediction, frame: found.append(int(prediction.argmax())),
        )
        pipeline.start(use_main_thread=True)
        pipeline.join()
        return found

    return f"Roboflow Inference {version('inference')}, InferencePipeline", run
