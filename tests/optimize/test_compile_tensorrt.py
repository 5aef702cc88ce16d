"""A Jetson's bundle in two steps: prepared on any computer, compiled and chosen on the device.

NVIDIA's real builder compiles here too (TensorRT for RTX has the same interface); what runs its plans is ONNX Runtime on the
graph that they were made from, since no GPU is here.
"""

from pathlib import Path

import pytest

import spatialnet_edge
from conftest import CLIP
from spatialnet_edge.backends import Engine, load_backend
from spatialnet_edge.bundle import Bundle, open_bundle
from spatialnet_edge.errors import BuildError, EngineUnavailable
from spatialnet_edge.spec import ModelSpec
from spatialnet_optimize import build as build_module
from spatialnet_optimize import compile_tensorrt, targets
from spatialnet_optimize.build import Job, build
from spatialnet_optimize.compile_tensorrt import DeviceHere, compile_here, device_here, waiting
from spatialnet_optimize.targets import load_targets, row_here
from spatialnet_optimize.tensorrt_plan import RTX

ORIN = DeviceHere("Orin", "8.7")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    student = open_bundle("builtin:student")
    return build(Job(student, "orin-nano", tmp_path_factory.mktemp("prepared") / "orin.snb"))[0]


def test_the_host_sends_the_graphs_that_passed(prepared: Bundle) -> None:
    report = prepared.manifest.build
    assert report is not None
    assert report.target == "orin-nano"
    verdicts = {each.name: each.verdict for each in report.candidates}
    assert list(verdicts) == ["fp32", "fp16", "bf16", "int8-qdq"]
    compiled = {name for name, verdict in verdicts.items() if verdict.startswith("to be compiled on the device")}
    assert {"fp32", "fp16", "bf16"} <= compiled
    assert "not judged" in verdicts["bf16"]
    assert "passes, simulated" in verdicts["fp16"]
    assert "int8-qdq" in compiled or "accuracy: loses" in verdicts["int8-qdq"]  # 0.5 points of 200 images is one image
    assert set(waiting(prepared)) == compiled
    assert next(iter(waiting(prepared))) == "fp32"
    assert waiting(open_bundle("builtin:student")) == {}


def test_a_prepared_bundle_flies_on_its_portable_graph_and_says_what_waits(prepared: Bundle) -> None:
    with spatialnet_edge.load(prepared.path) as model:
        assert model.opened.record.path == "model.onnx"
        assert len(model.opened.passed_over) == len(waiting(prepared)) - 1
    results = spatialnet_edge.stream(prepared.path, str(CLIP))
    assert next(results).land_use.confidence > 0
    results.close()
    with pytest.raises(EngineUnavailable):
        spatialnet_edge.load(prepared.path, fallback=False)


def runner(slow: str = "") -> tuple[dict[bytes, bytes], object]:
    """Plans by their content, and an opener that runs the graph each came from."""
    graphs: dict[bytes, bytes] = {}

    def open_plan(content: bytes, spec: ModelSpec) -> Engine:
        return load_backend("onnxruntime").open(graphs[content], spec, 1)

    return graphs, open_plan


def test_the_device_compiles_judges_and_keeps_the_fastest_that_passes(
    prepared: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    graphs, open_plan = runner()
    real = compile_tensorrt.build_plan

    def compiled(library, content, shape, options):
        assert options.workspace_mb == 1024  # an eighth of 8 GB
        plan = real(library, content, shape, options)
        graphs[plan.content] = content
        return plan

    monkeypatch.setattr(compile_tensorrt, "build_plan", compiled)
    monkeypatch.setattr(targets, "device_here", lambda: ORIN)
    monkeypatch.setattr(build_module, "device_here", lambda: ORIN)
    monkeypatch.setattr(targets, "DEVICE_MODEL", tmp_path / "none")

    def on_rtx(*arguments):
        return compile_here(*arguments, library=RTX, open_plan=open_plan)

    monkeypatch.setattr(build_module, "compile_here", on_rtx)
    monkeypatch.setattr(
        build_module, "waiting", lambda bundle: {name: g for name, g in waiting(bundle).items() if name != "bf16"}
    )  # no CPU kernels
    steps: list[str] = []
    bundle, decision = build(Job(prepared, "here", tmp_path / "done.snb"), steps.append)
    assert sum(step.startswith("compile ") for step in steps) == len(waiting(prepared)) - 1
    assert not any(step.startswith("int8-qdq:") for step in steps)  # nothing is quantised on the device
    engine = bundle.manifest.engines[0]
    assert (engine.device, engine.portable) == ("Orin", False)
    assert engine.library_version
    assert engine.precision == decision.winner.name
    assert bundle.read(engine.path) in graphs
    assert bundle.manifest.build is not None
    assert all(each.latency_ms > 0 and each.accuracy for each in bundle.manifest.build.candidates)
    assert sum(each.chosen for each in bundle.manifest.build.candidates) == 1
    assert not any(record.path.startswith("graphs/") for record in bundle.manifest.files)


def test_a_form_that_does_not_compile_is_reported_and_the_reference_must() -> None:
    student = open_bundle("builtin:student")
    graph = student.read("model.onnx")

    def judge(engines, plans):
        return build_module.measure_engines(engines, plans, student.spec, student, [], lambda text: None)

    def open_plan(content: bytes, spec: ModelSpec) -> Engine:
        return load_backend("onnxruntime").open(graph, spec, 1)

    pytest.importorskip("tensorrt_rtx")
    decision, engines, _ = compile_here(
        {"fp32": graph, "fp16": b"no graph"}, student.spec, judge, 0.5, ORIN, 8, lambda text: None, RTX, open_plan
    )
    assert decision.records[1].verdict.startswith("does not compile: TensorRT for RTX")
    assert next(iter(engines)).precision == "fp32"
    with pytest.raises(BuildError):
        compile_here({"fp32": b"no graph"}, student.spec, judge, 0.5, ORIN, 8, lambda text: None, RTX, open_plan)


@pytest.mark.parametrize(
    ("board", "capability", "expected"),
    [
        ("NVIDIA Jetson Orin Nano Developer Kit", "8.7", "orin-nano"),
        ("NVIDIA Jetson AGX Orin Developer Kit", "8.7", "agx-orin"),
        ("", "11.0", "thor"),
        ("", "8.9", "cpu"),
    ],
)
def test_here_is_found_out_by_itself(
    board: str, capability: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").write_text(board)
    monkeypatch.setattr(targets, "device_here", lambda: DeviceHere("a GPU", capability))
    assert row_here(load_targets(), tmp_path / "model") == expected


def test_without_tensorrt_here_is_the_cpu() -> None:
    assert device_here() is None
    assert row_here(load_targets()) == "cpu"
