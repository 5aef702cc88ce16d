"""Common fixtures: a tiny model whose outputs depend on brightness, real images, and the shared data sets if present."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from spatialnet_edge.bundle.manifest import Provenance
from spatialnet_edge.bundle.reader import Bundle, open_bundle
from spatialnet_edge.core.spec import RGB, InputSpec, ModelSpec, Multiclass, Multilabel, Regression
from spatialnet_edge.engines.registry import load_backend
from spatialnet_optimize.build.bundle_writer import portable_bundle
from spatialnet_optimize.export.half_weights import whole_weights

pytest_plugins = ["mqtt_broker", "service_fixtures", "training_fixtures"]

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
CLIP = ROOT / "samples" / "brighton_beach.mp4"
SAMPLES = ROOT / "optimize" / "spatialnet_optimize" / "samples"
SIDE = 32

TINY = ModelSpec(
    name="tiny",
    input=InputSpec(height=SIDE, width=SIDE, groups=(RGB,)),
    heads=(
        Multiclass(name="shade", labels=("dark", "bright"), abstain_below=0.6),
        Multilabel(name="bands", labels=("red", "green", "blue"), thresholds=(0.5, 0.5, 0.5)),
        Regression(name="level", unit="counts", low=0, high=255),
    ),
)


def tiny_graph(spec: ModelSpec = TINY, gain: float = 0.05) -> bytes:
    """A graph of the mean of each band: `shade` from their sum, `bands` from each, `level` from their mean."""
    shade = np.array([[-gain, gain]] * 3, np.float32) / 3
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "half"], ["centred"]),
        helper.make_node("MatMul", ["centred", "shade_weight"], ["shade_logits"]),
        helper.make_node("Softmax", ["shade_logits"], ["shade"], axis=-1),
        helper.make_node("Mul", ["centred", "gain"], ["bands_logits"]),
        helper.make_node("Sigmoid", ["bands_logits"], ["bands"]),
        helper.make_node("ReduceMean", ["mean", "last"], ["level"], keepdims=1),
    ]
    constants = {
        "axes": np.array([1, 2], np.int64),
        "last": np.array([1], np.int64),
        "half": np.float32(127.5),
        "gain": np.float32(gain),
        "shade_weight": shade,
    }
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *spec.input.shape])],
        [helper.make_tensor_value_info(head.name, TensorProto.FLOAT, ["batch", head.width]) for head in spec.heads],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def lit(level: int, height: int = SIDE, width: int = SIDE) -> NDArray[np.uint8]:
    """A picture with the mean `level`, its halves two grey levels below and above, because a flat picture gets no label."""
    picture = np.full((height, width, 3), level, np.uint8)
    picture[:, : width // 2] -= 2
    picture[:, width - width // 2 :] += 2
    return picture


@cache
def clip_frames(count: int, step: int = 20) -> list[NDArray[np.uint8]]:
    """Real frames of the shipped clip, RGB."""
    capture = cv2.VideoCapture(str(CLIP))
    frames: list[NDArray[np.uint8]] = []
    while len(frames) < count:
        for _ in range(step):
            arrived, image = capture.read()
            assert arrived
        frames.append(np.ascontiguousarray(image[..., ::-1], np.uint8))
    capture.release()
    return frames


def write_tiny_bundle(path: Path, graph: bytes | None = None, spec: ModelSpec = TINY) -> Bundle:
    graph = graph or tiny_graph()
    frames = np.stack([cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for frame in clip_frames(8)])
    frames = np.clip(frames.astype(int) * np.linspace(0.2, 2, 8)[:, None, None, None], 0, 255).astype(np.uint8)
    engine = load_backend("onnxruntime").open(graph, spec, 1)
    answers = {name: values.copy() for name, values in engine.infer(frames).items()}
    provenance = Provenance(created="2026-01-01T00:00:00+00:00", tool="tests", source="tests/conftest.py")
    return portable_bundle(path, spec, graph, frames, answers, provenance)


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid bundle of the tiny model; do not change it."""
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "tiny.snb").path


@pytest.fixture
def tiny_copy(tmp_path: Path) -> Bundle:
    """A bundle directory of the tiny model, to be damaged."""
    return write_tiny_bundle(tmp_path / "tiny")


@pytest.fixture(autouse=True, scope="session")
def no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Six real images in two class folders, a text file, and one broken JPEG."""
    for index, frame in enumerate(clip_frames(6, step=8)):
        folder = tmp_path / "images" / ("dark" if index % 2 else "bright")
        folder.mkdir(parents=True, exist_ok=True)
        level = frame // 8 if index % 2 else 255 - frame // 8
        cv2.imwrite(str(folder / f"{index}.jpg"), level[..., ::-1])
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    (tmp_path / "images" / "dark" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is no JPEG")
    return tmp_path / "images"


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Path of a full data set; skips the test if it is absent."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"{name} is not on this machine")
        return path

    return find


def shipped_graph(name: str = "builtin:student") -> bytes:
    """The graph of a shipped model with float32 weights, as `build` gives it to compilers and quantisers."""
    return whole_weights(open_bundle(name).read("model.onnx"))


@pytest.fixture(scope="session")
def student_spec() -> ModelSpec:
    """The contract of the shipped student."""
    return open_bundle("builtin:student").spec
