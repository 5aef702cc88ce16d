"""A Jetson's bundle in two steps: prepared on any computer, compiled and chosen on the device.

NVIDIA's real builder compiles here too (TensorRT for RTX has the same interface); what runs its plans is ONNX Runtime on the
graph that they were made from, since no GPU is here.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import spatialnet_edge
from conftest import CLIP
from spatialnet_edge.bundle.manifest import ExecutedLayer
from spatialnet_edge.bundle.reader import Bundle, open_bundle
from spatialnet_edge.core.errors import BuildError, EngineUnavailable
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.engines.registry import Engine, load_backend
from spatialnet_optimize.build import build as build_module
from spatialnet_optimize.build.build import Job, build
from spatialnet_optimize.compilers import base as compiler_module
from spatialnet_optimize.compilers.base import Compiler, timings_of
from spatialnet_optimize.compilers.plan_builder import RTX, TENSORRT, Plan, PlanOptions
from spatialnet_optimize.compilers.tensorrt import DeviceHere, compile_here, device_here, waiting
from spatialnet_optimize.targets import catalogue as targets
from spatialnet_optimize.targets.catalogue import load_targets, row_here

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
        assert len(model.opened.rejected) == len(waiting(prepared)) - 1
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
    real = compiler_module.build_plan

    def compiled(library, content, shape, options, progress):
        assert options.workspace_mb == 1024  # an eighth of 8 GB
        plan = real(library, content, shape, options, progress)
        graphs[plan.content] = content
        return plan

    monkeypatch.setattr(compiler_module, "build_plan", compiled)
    monkeypatch.setattr(targets, "device_here", lambda: ORIN)
    monkeypatch.setattr(build_module, "device_here", lambda: ORIN)
    monkeypatch.setattr(targets, "DEVICE_MODEL", tmp_path / "none")

    def on_rtx(contents, spec, judge, budget, device, compiler, step):
        return compile_here(contents, spec, judge, budget, device, replace(compiler, library=RTX), step, open_plan)

    monkeypatch.setattr(build_module, "compile_here", on_rtx)
    monkeypatch.setattr(build_module, "timings_of", lambda *device: tmp_path / "timings.cache")
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

    def compile_them(contents):
        return compile_here(contents, student.spec, judge, 0.5, ORIN, Compiler(RTX), lambda text: None, open_plan)

    done = compile_them({"fp32": graph, "fp16": b"no graph"})
    assert done.decision.records[1].verdict.startswith("does not compile: TensorRT for RTX")
    assert next(iter(done.files)).precision == "fp32"
    with pytest.raises(BuildError):
        compile_them({"fp32": b"no graph"})


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[PlanOptions]:
    """A builder whose plan is the graph itself, shorter by half without its weights; gives the options that it was asked for."""
    asked: list[PlanOptions] = []

    def pretend(library, content, shape, options, progress):
        asked.append(options)
        kept = len(content) // 2 if options.strip_weights else len(content)
        return Plan(content[:kept], "10.3.0", options.timing_cache + b"measured;", 1.0, 0, 9)

    monkeypatch.setattr(compiler_module, "build_plan", pretend)
    return asked


def on_the_device(precisions: dict[str, str], options: PlanOptions, timings: Path | None = None):
    """Compile the student's FP32 graph twice, under these names, on a device whose inspector finds these precisions."""
    student = open_bundle("builtin:student")
    graph = student.read("model.onnx")
    forms = iter(precisions.values())

    def judge(engines, plans):
        found = build_module.measure_engines(engines, plans, student.spec, student, [], lambda text: None)
        return [replace(each, p50_ms=1.0 / (1 + index)) for index, each in enumerate(found)]  # the narrower, the faster

    def open_plan(content: bytes, spec: ModelSpec) -> Engine:
        return load_backend("onnxruntime").open(content, spec, 1)

    def look(engine: Engine) -> list[ExecutedLayer]:
        return [ExecutedLayer(name="gemm", precision=next(forms), ms=0.1), ExecutedLayer(name="copy", precision="")]

    compiler = Compiler(TENSORRT, options, timings=timings)
    contents = dict.fromkeys(precisions, graph)
    return compile_here(contents, student.spec, judge, 0.5, ORIN, compiler, lambda text: None, open_plan, look)


def test_a_plan_that_runs_in_another_precision_than_was_asked_for_is_refused(pretended: list[PlanOptions]) -> None:
    done = on_the_device({"fp32": "fp32", "fp16": "fp32"}, PlanOptions())
    assert done.decision.winner.name == "fp32"
    assert done.decision.records[1].verdict == ("executed precision: fp16 was asked for and no layer runs in it: 1 in fp32")
    done = on_the_device({"fp32": "fp32", "fp16": "fp16"}, PlanOptions())
    assert done.decision.winner.name == "fp16"
    assert done.decision.records[1].executed == {"fp16": 1}
    assert [layer.name for layer in done.layers] == ["gemm", "copy"]


def test_a_stripped_plan_travels_with_the_graph_that_has_its_weights(pretended: list[PlanOptions]) -> None:
    done = on_the_device({"fp32": "fp32", "fp16": "fp16"}, PlanOptions(strip_weights=True))
    plan, graph = done.files
    assert (plan.weights, graph.path) == ("graphs/fp16.onnx", "graphs/fp16.onnx")
    assert len(done.files[plan]) == done.decision.records[1].stripped_size < done.decision.records[1].size
    alone = on_the_device({"fp32": "fp32"}, PlanOptions(strip_weights=True))
    assert [engine.weights for engine in alone.files] == ["model.onnx"]  # which every bundle has


def test_what_a_build_measured_is_given_to_the_next(pretended: list[PlanOptions], tmp_path: Path) -> None:
    timings = tmp_path / "cache" / "orin.cache"
    on_the_device({"fp32": "fp32", "fp16": "fp16"}, PlanOptions(), timings)
    on_the_device({"fp32": "fp32"}, PlanOptions(), timings)
    assert [options.timing_cache.count(b"measured") for options in pretended] == [0, 1, 2]


def test_measurements_are_kept_for_each_device_and_release() -> None:
    pytest.importorskip("tensorrt_rtx")
    first, second = timings_of(RTX, "Orin", "8.7"), timings_of(RTX, "NVIDIA RTX A/B", "8.9")
    assert first.name.startswith("tensorrt_rtx-")
    assert first != second
    assert "/" not in second.name


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


ON_A_BARE_DEVICE = """
import sys
class NotInstalledThere:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "onnx", "timm", "matplotlib", "jinja2", "cv2", "ml_dtypes"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
sys.meta_path.insert(0, NotInstalledThere())
from pathlib import Path
from spatialnet_edge.engines.registry import load_backend
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_optimize.build import build as build_module
from spatialnet_optimize.compilers import base as compiler
from spatialnet_optimize.targets import catalogue as targets
from spatialnet_optimize.compilers.tensorrt import DeviceHere, compile_here
from spatialnet_optimize.compilers.plan_builder import Plan
orin = lambda: DeviceHere("Orin", "8.7")
targets.device_here = build_module.device_here = orin
build_module.timings_of = lambda *device: None
compiler.build_plan = lambda library, content, *rest: Plan(content, "10.3.0", b"", 1.0, 0, 9)
run = lambda content, spec: load_backend("onnxruntime").open(content, spec, 1)
build_module.compile_here = lambda *arguments: compile_here(*arguments, open_plan=run)
found = build_module.waiting
build_module.waiting = lambda bundle: {name: graph for name, graph in found(bundle).items() if name != "bf16"}  # no CPU kernels
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
