"""One conformance suite over every engine, then what CheckedEngine catches, then how an engine is chosen."""

import re
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
import pytest

import spatialnet_edge
from conftest import SIDE, TINY, tiny_graph, write_tiny_bundle
from spatialnet_edge.bundle.manifest import EngineRecord
from spatialnet_edge.bundle.reader import Bundle, open_bundle
from spatialnet_edge.bundle.writer import file_records, write_bundle
from spatialnet_edge.core.errors import (
    BundleError,
    EngineError,
    EngineUnavailable,
    GoldenTestFailed,
    InvalidOutput,
    MissingExtra,
    SpatialNetError,
    UsageError,
)
from spatialnet_edge.core.installation import install_command
from spatialnet_edge.core.plugins import Plugin
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.engines import registry
from spatialnet_edge.engines.fake import FakeEngine
from spatialnet_edge.engines.registry import BACKENDS, CheckedEngine, Engine, load_backend, open_engine
from spatialnet_edge.runtime.golden import golden_vectors

BATCH = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)


@pytest.fixture(params=["onnxruntime", "openvino", "fake"])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "fake":
        return CheckedEngine(FakeEngine(TINY))
    return CheckedEngine(load_backend(request.param).open(tiny_graph(), TINY, 1))


def test_every_engine_keeps_the_contract(engine: Engine) -> None:
    outputs = engine.infer(BATCH)
    for head in TINY.heads:
        assert outputs[head.name].shape == (3, head.width)
        assert outputs[head.name].dtype == np.float32
    again = engine.infer(BATCH)
    assert all(np.array_equal(outputs[name], again[name]) for name in outputs)
    bright = engine.infer(np.full((1, SIDE, SIDE, 3), 250, np.uint8))["shade"][0]
    dark = engine.infer(np.full((1, SIDE, SIDE, 3), 5, np.uint8))["shade"][0]
    assert bright.argmax() == 1
    assert dark.argmax() == 0
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed; classify inside the 'with' block"):
        engine.infer(BATCH)


@pytest.mark.parametrize("bad", [BATCH.astype(np.float32), BATCH[0], BATCH[:, :16], BATCH[..., :1]])
def test_a_batch_that_is_not_what_the_spec_says_is_refused(engine: Engine, bad: np.ndarray) -> None:
    with pytest.raises(UsageError, match=rf"the model takes uint8 \(N, {SIDE}, {SIDE}, 3\)"):
        engine.infer(bad)


def good(batch: np.ndarray) -> dict[str, np.ndarray]:
    return dict(FakeEngine(TINY).infer(batch))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shade": np.array([[np.nan, 1.0]], np.float32)}, "of 'shade' range from nan"),
        ({"shade": np.array([[np.inf, 0.0]], np.float32)}, "of 'shade' range from 0.0 to inf"),
        ({"shade": np.array([[0.7, 0.7]], np.float32)}, "sum to 1.400"),
        ({"shade": np.array([[-0.5, 1.5]], np.float32)}, "range from -0.5 to 1.5"),
        ({"shade": np.array([[0.5, 0.25, 0.25]], np.float32)}, r"expected float32 \(1, 2\)"),
        ({"shade": np.array([[0.5, 0.5]], np.float64)}, "float64"),
        ({"bands": np.array([[0.1, 0.2, 1.2]], np.float32)}, "'bands' has values"),
        ({"level": np.array([[300.0]], np.float32)}, "from 300.0 to 300.0; expected 0 to 255"),
    ],
)
def test_what_is_no_answer_never_becomes_a_label(change: dict[str, np.ndarray], message: str) -> None:
    engine = CheckedEngine(FakeEngine(TINY, answer=lambda batch: good(batch) | change))
    with pytest.raises(InvalidOutput, match=message):
        engine.infer(BATCH[:1])


def test_a_missing_output_is_named() -> None:
    engine = CheckedEngine(FakeEngine(TINY, answer=lambda batch: {"shade": good(batch)["shade"]}))
    with pytest.raises(InvalidOutput, match="no output 'bands'"):
        engine.infer(BATCH[:1])


def test_a_graph_that_does_not_fit_the_manifest_is_refused() -> None:
    backend = load_backend("onnxruntime")
    wrong = msgspec.structs.replace(TINY, input=msgspec.structs.replace(TINY.input, height=64))
    with pytest.raises(BundleError, match="the manifest has"):
        backend.open(tiny_graph(), wrong, 1)
    with pytest.raises(BundleError, match="cannot load this graph"):
        backend.open(b"not an ONNX file", TINY, 1)


def with_engines(bundle: Bundle, path: Path, *records: EngineRecord) -> Bundle:
    contents = {record.path: bundle.read(record.path) for record in bundle.manifest.files}
    contents |= {record.path: b"a plan" for record in records if record.path not in contents}
    manifest = msgspec.structs.replace(bundle.manifest, files=file_records(contents), engines=records)
    return write_bundle(path, manifest, contents)


@pytest.mark.fault(25)
def test_a_plan_of_another_version_is_passed_over_with_both_versions(tiny_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    plan = EngineRecord(
        path="engines/x.plan", backend="tensorrt_rtx", precision="fp32", library_version="1.0.0", portable=False
    )
    opened = open_engine(with_engines(open_bundle(tiny_path), tmp_path / "x.snb", plan))
    assert opened.record.path == "model.onnx"
    assert "built with TensorRT for RTX 1.0.0; here" in opened.rejected[0]


def test_forcing_a_backend_never_falls_back(tiny_path: Path, tmp_path: Path) -> None:
    bundle = open_bundle(tiny_path)
    with pytest.raises(UsageError, match="no backend 'abacus'"):
        open_engine(bundle, "abacus")
    plan = EngineRecord(
        path="engines/x.plan", backend="tensorrt_rtx", precision="fp32", library_version="1.0.0", portable=False
    )
    with pytest.raises(EngineUnavailable, match=r"engines/x\.plan"):
        open_engine(with_engines(bundle, tmp_path / "x.snb", plan), "tensorrt_rtx")


def test_a_missing_extra_is_reported_only_when_it_is_that_library() -> None:
    with pytest.raises(MissingExtra, match=f"install it with: {re.escape(install_command('rtx'))}$"):
        Plugin("no_such_library_at_all:Thing", "no_such_library_at_all", "rtx").load()
    with pytest.raises(ModuleNotFoundError):
        Plugin("no_such_library_at_all:Thing", "something_else", "rtx").load()


def test_every_row_of_the_table_loads_or_names_its_extra() -> None:
    for name, row in BACKENDS.items():
        if row.library and find_spec(row.library) is None:
            with pytest.raises(MissingExtra, match=row.extra):
                load_backend(name)
        else:
            assert load_backend(name).name == name


def test_the_golden_test_passes_for_the_model_and_fails_for_another(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "a.snb")
    backend = load_backend("onnxruntime")
    assert golden_vectors(bundle).test(backend.open(tiny_graph(), TINY, 1)).passed
    impostor = backend.open(tiny_graph(gain=0.2), TINY, 1)
    with pytest.raises(GoldenTestFailed, match="golden test failed: 'bands' differs by 0"):
        golden_vectors(bundle).require(impostor)


def test_a_nan_fails_the_golden_test(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "a.snb")
    broken = FakeEngine(TINY, answer=lambda batch: {n: np.full_like(v, np.nan) for n, v in good(batch).items()})
    assert not golden_vectors(bundle).test(broken).passed


def test_an_engine_without_weights_needs_a_backend_that_can_fill_it(tiny_copy: Bundle) -> None:
    record = EngineRecord(path="engines/cpu.onnx", backend="onnxruntime", precision="fp32", weights="model.onnx")
    contents = {record.path: tiny_graph()} | {file.path: tiny_copy.read(file.path) for file in tiny_copy.manifest.files}
    manifest = msgspec.structs.replace(tiny_copy.manifest, files=file_records(contents), engines=(record,))
    bundle = write_bundle(tiny_copy.path.with_name("stripped"), manifest, contents)
    opened = open_engine(bundle)
    assert opened.record.path == "model.onnx"
    assert "cannot open an engine without weights" in opened.rejected[0]
    with pytest.raises(EngineUnavailable, match="cannot open an engine without weights"):
        open_engine(bundle, fallback=False)


class NoEngine:
    """A backend whose plans never open, for the reason that is raised."""

    name, takes_graphs = "no_engine", False

    def __init__(self, error: Exception) -> None:
        self.error = error

    def refuses(self, record: EngineRecord) -> str | None:
        return None

    def open(self, content: bytes, spec: ModelSpec, threads: int) -> Engine:
        raise self.error


@pytest.mark.fault(72)
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (EngineUnavailable("this library cannot load this plan"), "cannot load this plan"),
        (EngineError("cuStreamEndCapture failed with CUDA error 901"), "CUDA error 901"),
        (MemoryError("900 MB"), "MemoryError: 900 MB"),
        (RuntimeError("std::bad_alloc"), "RuntimeError: std::bad_alloc"),
    ],
)
def test_a_form_that_does_not_open_gives_way_to_the_portable_graph(
    tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    real = registry.load_backend
    monkeypatch.setattr(registry, "load_backend", lambda name: NoEngine(error) if name == "no_engine" else real(name))
    plan = EngineRecord(path="engines/x.plan", backend="no_engine", precision="fp16", portable=False)
    bundle = with_engines(open_bundle(tiny_path), tmp_path / "x.snb", plan)
    opened = open_engine(bundle)
    assert opened.record.path == "model.onnx"
    assert reason in opened.rejected[0]
    assert opened.rejected[0].startswith("engines/x.plan: ")
    with pytest.raises(SpatialNetError, match=re.escape(reason)):
        open_engine(bundle, fallback=False)


def test_a_form_that_gives_wrong_answers_gives_way_to_the_portable_graph(tiny_path: Path, tmp_path: Path) -> None:
    wrong = EngineRecord(path="engines/wrong.onnx", backend="onnxruntime", precision="int8")
    plain = open_bundle(tiny_path)
    contents = {file.path: plain.read(file.path) for file in plain.manifest.files} | {wrong.path: tiny_graph(gain=0.2)}
    manifest = msgspec.structs.replace(plain.manifest, files=file_records(contents), engines=(wrong,))
    bundle = write_bundle(tmp_path / "x.snb", manifest, contents)
    with spatialnet_edge.load(bundle.path) as model:
        assert model.opened.record.path == "model.onnx"
        assert "golden test failed" in model.opened.rejected[0]
    with pytest.raises(GoldenTestFailed, match="golden test failed"):
        spatialnet_edge.load(bundle.path, fallback=False)


def test_a_changed_file_is_no_reason_to_fall_back(tiny_copy: Bundle) -> None:
    (tiny_copy.path / "model.onnx").write_bytes(b"something else")
    with pytest.raises(BundleError, match=r"model\.onnx"):
        open_engine(tiny_copy)
