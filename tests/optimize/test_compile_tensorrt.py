"""A Jetson's bundle in two steps: prepared on any computer, compiled and chosen on the device.

NVIDIA's real builder also compiles without a GPU (TensorRT for RTX has the same interface). ONNX Runtime runs the source graph
in place of a plan. `tests/cuda` runs the second step on a stand-in of the driver.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import spatialnet_edge
from conftest import CLIP, shipped_graph
from spatialnet_edge.bundle.manifest import DeviceRecord, EngineRecord, ExecutedLayer
from spatialnet_edge.bundle.reader import Bundle, open_bundle
from spatialnet_edge.core.errors import BuildError, EngineUnavailable, MissingExtra
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.engines.registry import Engine, load_backend
from spatialnet_optimize.build.build import Job, build
from spatialnet_optimize.compilers import plan_builder
from spatialnet_optimize.compilers.base import Compiled, CompileRequest
from spatialnet_optimize.compilers.device import device_here
from spatialnet_optimize.compilers.plan_builder import RTX, TENSORRT, Plan, PlanBuilder, PlanOptions
from spatialnet_optimize.compilers.registry import COMPILERS, CompilerSettings, make_compiler, timing_cache
from spatialnet_optimize.compilers.tensorrt import TensorRtCompiler, workspace
from spatialnet_optimize.compilers.tensorrt_host import waiting
from spatialnet_optimize.evaluation.candidate_evaluation import evidence_of, measure_engines
from spatialnet_optimize.evaluation.gates import Measured
from spatialnet_optimize.targets import catalogue
from spatialnet_optimize.targets.catalogue import load_targets, row_here

NANO = DeviceRecord("Orin", "8.7", 8, 7_990_000_000, "NVIDIA Jetson Orin Nano Developer Kit")
STUDENT = open_bundle("builtin:student")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build(Job(STUDENT, "orin-nano", tmp_path_factory.mktemp("prepared") / "orin.snb"))[0]


def test_the_host_prepares_the_graphs_that_passed(prepared: Bundle) -> None:
    report = prepared.manifest.build
    assert report is not None
    assert report.target == "orin-nano"
    verdicts = {each.name: each.verdict for each in report.candidates}
    assert list(verdicts) == ["fp32", "fp16", "bf16", "int8-qdq", "int8-qdq-fp16"]
    compiled = {name for name, verdict in verdicts.items() if verdict.startswith("to be compiled on the device")}
    assert {"fp32", "fp16", "bf16"} <= compiled
    assert "not evaluated" in verdicts["bf16"]
    assert "passes, simulated" in verdicts["fp16"]
    assert "int8-qdq" in compiled or "accuracy: loses" in verdicts["int8-qdq"]  # 0.5 points of 200 images is one image
    assert set(waiting(prepared)) == compiled
    assert next(iter(waiting(prepared))) == "fp32"
    assert waiting(STUDENT) == {}


def test_a_prepared_bundle_runs_its_portable_graph_and_reports_the_rest(prepared: Bundle) -> None:
    with spatialnet_edge.load(prepared.path) as model:
        assert model.opened.record.path == "model.onnx"
        assert len(model.opened.rejected) == len(waiting(prepared)) - 1
    results = spatialnet_edge.stream(prepared.path, str(CLIP))
    assert next(results).land_use.confidence > 0
    results.close()
    with pytest.raises((EngineUnavailable, MissingExtra)):
        spatialnet_edge.load(prepared.path, fallback=False)


class GraphRunner:
    """Runs the source graph of each plan; the test defines the layers."""

    def __init__(self, precisions: Mapping[str, str]) -> None:
        self.graphs: dict[bytes, bytes] = {}
        self.precisions = precisions
        self.opened: list[str] = []

    def open(self, record: EngineRecord, content: bytes, weights: bytes | None, spec: ModelSpec) -> Engine:
        self.opened.append(record.precision)
        return load_backend("onnxruntime").open(weights or self.graphs.get(content, content), spec, 1)

    def layers(self, engine: Engine) -> Sequence[ExecutedLayer]:
        precision = self.precisions[self.opened[-1]]
        return [ExecutedLayer(name="gemm", precision=precision, ms=0.1), ExecutedLayer(name="copy", precision="")]


def compile_student(runner: GraphRunner, builder: PlanBuilder, variants: Mapping[str, bytes]) -> Compiled:
    """Compile variants of the student; lower precision is simulated as faster."""

    def measure(engines: Mapping[str, Engine], files: Mapping[str, bytes], timed: bool = True) -> list[Measured]:
        found = measure_engines(engines, files, evidence_of(STUDENT, STUDENT.spec, []), lambda text: None, timed)
        return [replace(each, p50_ms=1.0 / (1 + index)) for index, each in enumerate(found)]

    request = CompileRequest(variants, STUDENT, STUDENT.spec, 0.5, measure, lambda text: None, prepared=True)
    return TensorRtCompiler(builder, NANO, runner).compile(request)


def test_a_real_builder_compiles_each_variant_and_one_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    runner = GraphRunner({"fp32": "fp32", "fp16": "fp16"})
    real = plan_builder.build_plan

    def built(library, content, shape, options, progress):
        plan = real(library, content, shape, options, progress)
        runner.graphs[plan.content] = content
        return plan

    monkeypatch.setattr(plan_builder, "build_plan", built)
    graph = shipped_graph()
    done = compile_student(runner, PlanBuilder(RTX), {"fp32": graph, "fp16": b"no graph"})
    assert done.decision.records[1].verdict.startswith("does not compile: TensorRT for RTX")
    ((engine, content),) = done.files.items()
    assert (engine.precision, engine.device, engine.built_on, engine.portable) == ("fp32", "Orin", NANO, False)
    assert content in runner.graphs
    assert done.libraries["tensorrt_rtx"] == engine.library_version
    with pytest.raises(BuildError):
        compile_student(runner, PlanBuilder(RTX), {"fp32": b"no graph"})


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[PlanOptions]:
    """A simulated builder whose plan is the graph itself, half as long without weights. Returns the requested options."""
    asked: list[PlanOptions] = []

    def pretend(library, content, shape, options, progress):
        asked.append(options)
        kept = len(content) // 2 if options.strip_weights else len(content)
        return Plan(content[:kept], "10.3.0", options.timing_cache + b"measured;", 1.0, 0, 9)

    monkeypatch.setattr(plan_builder, "build_plan", pretend)
    return asked


def on_the_device(precisions: dict[str, str], options: PlanOptions, timings: Path | None = None) -> Compiled:
    """Compile the student's FP32 graph under each of these names; the inspector finds these precisions."""
    variants = dict.fromkeys(precisions, shipped_graph())
    return compile_student(GraphRunner(precisions), PlanBuilder(TENSORRT, options, timings=timings), variants)


def test_a_plan_with_another_executed_precision_is_refused(pretended: list[PlanOptions]) -> None:
    done = on_the_device({"fp32": "fp32", "fp16": "fp32"}, PlanOptions())
    assert done.decision.winner.name == "fp32"
    assert done.decision.records[1].verdict == ("executed precision: fp16 was requested, but no layer runs in it: 1 in fp32")
    done = on_the_device({"fp32": "fp32", "fp16": "fp16"}, PlanOptions())
    assert done.decision.winner.name == "fp16"
    assert done.decision.records[1].executed == {"fp16": 1}
    assert [layer.name for layer in done.layers] == ["gemm", "copy"]


def test_a_plan_of_unknown_precision_is_refused(pretended: list[PlanOptions]) -> None:
    done = on_the_device({"fp32": "", "fp16": ""}, PlanOptions())
    assert done.decision.winner.name == "fp32"
    assert "inspector reports no precisions" in done.decision.records[1].verdict


def test_a_stripped_plan_is_bundled_with_the_graph_of_its_weights(pretended: list[PlanOptions]) -> None:
    done = on_the_device({"fp32": "fp32", "fp16": "fp16"}, PlanOptions(strip_weights=True))
    plan, graph = done.files
    assert (plan.weights, graph.path) == ("graphs/fp16.onnx", "graphs/fp16.onnx")
    assert len(done.files[plan]) == done.decision.records[1].stripped_size < done.decision.records[1].size
    alone = on_the_device({"fp32": "fp32"}, PlanOptions(strip_weights=True))
    assert [engine.weights for engine in alone.files] == ["model.onnx"]  # which every bundle has


def test_a_stripped_plan_with_other_outputs_is_refused(pretended: list[PlanOptions], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spatialnet_optimize.compilers.tensorrt.golden_difference", lambda engine, request: float("nan"))
    with pytest.raises(BuildError, match="gives other results: probabilities differ by nan"):
        on_the_device({"fp32": "fp32"}, PlanOptions(strip_weights=True))


def test_how_the_plan_was_built_is_recorded(pretended: list[PlanOptions]) -> None:
    done = on_the_device({"fp32": "fp32"}, PlanOptions(version_compatible=True, dla_core=1))
    (engine,) = done.files
    assert (engine.version_compatible, engine.dla_core) == (True, 1)
    assert done.notes == ("DLA: 0 of 9 layers; the GPU runs the others",)


def test_the_timing_cache_is_reused_by_the_next_build(pretended: list[PlanOptions], tmp_path: Path) -> None:
    timings = tmp_path / "cache" / "orin.cache"
    on_the_device({"fp32": "fp32", "fp16": "fp16"}, PlanOptions(), timings)
    on_the_device({"fp32": "fp32"}, PlanOptions(), timings)
    assert [options.timing_cache.count(b"measured") for options in pretended] == [0, 1, 2]


def test_measurements_are_kept_for_each_device_and_release() -> None:
    pytest.importorskip("tensorrt_rtx")
    other = DeviceRecord("NVIDIA RTX A/B", "8.9", 60, 16 << 30)
    paths = {timing_cache(RTX, device) for device in (NANO, other, replace_cores(NANO, 4))}
    assert len(paths) == 3
    assert all(path.name.startswith("tensorrt_rtx-") and "/" not in path.name for path in paths)


def replace_cores(device: DeviceRecord, cores: int) -> DeviceRecord:
    return DeviceRecord(device.name, device.compute_capability, cores, device.memory_bytes, device.board)


def test_the_builder_leaves_an_eighth_of_the_board() -> None:
    assert workspace(PlanOptions(), 8).workspace_mb == 1024
    assert workspace(PlanOptions(workspace_mb=64), 8).workspace_mb == 64


def test_every_target_has_a_compiler_that_keeps_to_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spatialnet_optimize.compilers.registry.timing_cache", lambda library, device: None)
    settings = CompilerSettings(on_device=False, memory_gb=8, options=PlanOptions(), progress=lambda *step: None)
    assert {row.compile for row in load_targets().values()} == set(COMPILERS)
    for name in COMPILERS:
        compiler = make_compiler(name, settings)
        assert compiler.scheme == ("cpu" if name == "onnxruntime" else "tensorrt")
        assert not compiler.finishes_prepared  # not on this computer
    with pytest.raises((EngineUnavailable, MissingExtra)):
        make_compiler("tensorrt", replace(settings, on_device=True))


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (NANO, "orin-nano"),
        (DeviceRecord("Orin", "8.7", 16, 64 << 30, "NVIDIA Jetson AGX Orin Developer Kit"), "agx-orin"),
        (DeviceRecord("Orin", "8.7", 8, 16 << 30, "A carrier board of somebody's own"), "orin-nx"),
        (DeviceRecord("Orin", "8.7", 16, 64 << 30, None), "agx-orin"),
        (DeviceRecord("NVIDIA Thor", "11.0", 20, 128 << 30, None), "thor"),
        (DeviceRecord("NVIDIA L4", "8.9", 58, 24 << 30, None), "cpu"),
    ],
)
def test_the_target_here_is_detected(device: DeviceRecord, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "device_here", lambda: device)
    assert row_here(load_targets()) == expected


def test_without_tensorrt_here_is_the_cpu() -> None:
    with pytest.raises((EngineUnavailable, MissingExtra)):
        device_here()
    assert row_here(load_targets()) == "cpu"


def test_a_bundle_prepared_for_a_gpu_becomes_a_cpu_bundle_only_on_request(prepared: Bundle, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"was prepared for TensorRT.*'tensorrt' is not installed.*--target cpu"):
        build(Job(prepared, "here", tmp_path / "here.snb"))
    assert not (tmp_path / "here.snb").exists()


ON_A_BARE_DEVICE = """
import sys
class NotInstalledThere:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "onnx", "timm", "matplotlib", "jinja2", "cv2", "ml_dtypes"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
sys.meta_path.insert(0, NotInstalledThere())
from pathlib import Path
from spatialnet_edge.bundle.manifest import DeviceRecord, ExecutedLayer
from spatialnet_edge.engines.registry import load_backend
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_optimize.build import build as build_module
from spatialnet_optimize.compilers import plan_builder
from spatialnet_optimize.compilers.tensorrt import TensorRtCompiler
from spatialnet_optimize.targets import catalogue
orin = DeviceRecord("Orin", "8.7", 8, 8 << 30)
class Runner:
    def open(self, record, content, weights, spec):
        return load_backend("onnxruntime").open(content, spec, 1)  # which refuses bf16
    def layers(self, engine):
        return [ExecutedLayer(name="all", precision=precision) for precision in ("fp16", "int8")]
catalogue.device_here = lambda: orin
plan_builder.build_plan = lambda library, content, *rest: plan_builder.Plan(content, "10.3.0", b"", 1.0, 0, 9)
builder = plan_builder.PlanBuilder(plan_builder.TENSORRT)
build_module.make_compiler = lambda name, settings: TensorRtCompiler(builder, orin, Runner())
path = Path(sys.argv[1])
bundle, _ = build_module.build(build_module.Job(open_bundle(path), "here", path))
print(bundle.manifest.engines[0].path)
"""


def test_the_device_finishes_in_place_without_torch_and_onnx(prepared: Bundle, tmp_path: Path) -> None:
    (tmp_path / "orin.snb").write_bytes(prepared.path.read_bytes())
    command = [sys.executable, "-c", ON_A_BARE_DEVICE, str(tmp_path / "orin.snb")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("engines/tensorrt.")
    assert [path.name for path in tmp_path.iterdir()] == ["orin.snb"]
