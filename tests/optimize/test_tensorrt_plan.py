"""The module for NVIDIA's builders, with the real bindings of several releases and a real builder."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
import torch

from conftest import shipped_graph
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.core.errors import BuildError, EngineUnavailable, MissingExtra, UsageError
from spatialnet_edge.core.installation import install_command
from spatialnet_edge.engines import tensorrt as runtime
from spatialnet_edge.engines import tensorrt_inspector as plan_layers
from spatialnet_edge.engines import tensorrt_plans
from spatialnet_optimize.cli.build_options import batches_of
from spatialnet_optimize.compilers import plan_builder as tensorrt_plan
from spatialnet_optimize.compilers.plan_builder import RTX, TENSORRT, PlanOptions, build_plan, load_builder, trtexec
from spatialnet_optimize.export.graph import export_onnx
from spatialnet_optimize.quantization.int8 import int8_static
from spatialnet_optimize.quantization.reduced_precision import to_bf16, to_fp16
from spatialnet_training.networks.backbones import PRESETS
from spatialnet_training.networks.model import SpatialNet

CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "first": "ParserError",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
    "inspector": "EngineInspector",
    "lane.context": "IExecutionContext",
    "refitter": "Refitter",
    "source": "OnnxParserRefitter",
}
"""What the module's variables are in the library."""

RELEASES = ("tensorrt-cu12-bindings==10.3.0", "tensorrt-cu13-bindings==10.16.1.11", "tensorrt-cu13-bindings==11.4.0.106")


RUNTIME = {"engine": "ICudaEngine", "context": "IExecutionContext", "runtime": "Runtime"}
"""The same for the module that runs plans."""


def names_used() -> set[str]:
    """Every `Class.member` of the library that the modules which build and run plans mention."""
    runtimes = (runtime, tensorrt_plans, plan_layers)
    return names_in(tensorrt_plan, CLASSES).union(*(names_in(module, RUNTIME | CLASSES) for module in runtimes))


def names_in(module: ModuleType, classes: dict[str, str]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if not isinstance(node, ast.Attribute):
            continue
        path = ast.unparse(node).removeprefix("self._")
        root, _, rest = path.partition(".")
        if root == "trt" and rest:
            found.add(rest)
        elif rest and root in classes and "." not in rest:
            found.add(f"{classes[root]}.{rest}")
    return found


def test_the_scan_finds_the_names_in_use() -> None:
    used = names_used()
    assert {
        "Builder",
        "OnnxParser",
        "BuilderFlag.STRIP_PLAN",
        "IBuilderConfig.set_timing_cache",
        "ITimingCache.serialize",
    } <= used
    assert {"NetworkDefinitionCreationFlag.STRONGLY_TYPED", "INetworkDefinition.get_layer", "ParserError.desc"} <= used
    assert {
        "ICudaEngine.create_execution_context",
        "IExecutionContext.execute_async_v3",
        "Runtime.deserialize_cuda_engine",
    } <= used
    assert len(used) > 40


CHECK = """
import sys, tensorrt_bindings as trt
def has(path):
    thing = trt
    for part in path.split("."):
        if not hasattr(thing, part):
            return False
        thing = getattr(thing, part)
    return True
print(trt.__version__)
print(",".join(name for name in sys.argv[1:] if not has(name)))
print("|".join((trt.IBuilderConfig.set_timing_cache.__doc__ or "").split()))
print("|".join((trt.IOptimizationProfile.set_shape.__doc__ or "").split()))
"""


@pytest.fixture(scope="module", params=RELEASES)
def bindings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """NVIDIA's Python bindings, and a stub of their C libraries that are not on the package index."""
    if sys.version_info[:2] != (3, 11) or not sys.platform.startswith("linux") or not shutil.which("cc"):
        pytest.skip("needs a C compiler, and the bindings are fetched for Python 3.11 on Linux")
    folder = tmp_path_factory.mktemp("bindings")
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), request.param]
    if subprocess.run(fetch, capture_output=True).returncode:
        pytest.skip(f"{request.param} cannot be fetched here")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    library = folder / "tensorrt_bindings" / "tensorrt.so"
    symbols = subprocess.run(["nm", "-D", "--undefined-only", library], check=True, capture_output=True, text=True).stdout
    missing = re.findall(r"U ((?:create\w+_INTERNAL|get\w*PluginRegistry|getNv\w+|initLibNv\w+))$", symbols, re.MULTILINE)
    assert len(missing) >= 9
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in missing))
    major = re.search(r"==(\d+)", request.param)
    assert major is not None
    (folder / "stub").mkdir()
    for name in ("nvinfer", "nvonnxparser", "nvinfer_plugin"):
        target = folder / "stub" / f"lib{name}.so.{major[1]}"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(target), str(source)], check=True)
    return request.param.partition("==")[2], folder, folder / "stub"


ONLY_RTX = frozenset({"BuilderFlag.REQUIRE_USER_ALLOCATION", "IExecutionContext.is_stream_capturable"})
"""Names that only TensorRT for RTX has, used only for it."""


def test_the_names_used_only_for_rtx_exist() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    assert names_used() >= ONLY_RTX
    assert hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION")
    assert hasattr(trt.IExecutionContext, "is_stream_capturable")
    assert hasattr(trt.ExecutionContextAllocationStrategy, "USER_MANAGED")


def test_every_name_that_is_used_exists_in_the_real_bindings(bindings: tuple[str, Path, Path]) -> None:
    version, folder, stub = bindings
    environment = os.environ | {"PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(stub)}
    arguments = [sys.executable, "-c", CHECK, *sorted(names_used() - ONLY_RTX), "BuilderFlag.NO_SUCH_FLAG"]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, absent, set_cache, set_shape = done.stdout.splitlines()
    assert found.startswith(version.removesuffix(".post1"))
    assert absent == "BuilderFlag.NO_SUCH_FLAG"  # and nothing else: the check can fail
    assert "ignore_mismatch" in set_cache  # the second argument, given by place
    assert all(name in set_shape for name in ("input", "min", "opt", "max"))


@pytest.fixture(scope="module")
def graph() -> bytes:
    return shipped_graph()


SHAPE = open_bundle("builtin:student").spec.input.shape


def test_a_real_builder_takes_every_option(graph: bytes) -> None:
    pytest.importorskip("tensorrt_rtx")
    seen: list[tuple[str, int, int]] = []
    plain = build_plan(RTX, graph, SHAPE, progress=lambda *step: seen.append(step))
    assert plain.layers > 50
    assert plain.version.count(".") >= 2
    assert any(done == steps for _, done, steps in seen)
    options = PlanOptions(batches=(1, 2, 4, 8), workspace_mb=256, level=3)
    assert len(build_plan(RTX, graph, SHAPE, options).content) > 1_000_000


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the weights can be stripped")
def test_a_builder_error_has_the_builders_message(graph: bytes) -> None:
    """TensorRT for RTX 1.7 strips weights only with a GPU."""
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(BuildError, match="could not build the network: IBuilder::buildSerializedNetwork"):
        build_plan(RTX, graph, SHAPE, PlanOptions(strip_weights=True))


@pytest.mark.parametrize("cast", [to_fp16, to_bf16])
def test_sixteen_bits_build_a_smaller_plan(graph: bytes, cast) -> None:
    pytest.importorskip("tensorrt_rtx")
    assert len(build_plan(RTX, cast(graph), SHAPE).content) < 0.75 * len(build_plan(RTX, graph, SHAPE).content)


@pytest.mark.parametrize("preset", [*PRESETS])
def test_every_preset_builds_in_every_precision(preset: str) -> None:
    """With random weights, because parser and builder depend only on the graph."""
    pytest.importorskip("tensorrt_rtx")
    student = open_bundle("builtin:student")
    torch.manual_seed(0)
    spec = msgspec.structs.replace(student.spec, known=None)
    heads = {head.name: head.width for head in spec.heads}
    content = export_onnx(SpatialNet(preset, heads, SHAPE[0]).eval(), spec)
    frames, _ = student.golden()
    forms = {
        "fp32": content,
        "fp16": to_fp16(content),
        "bf16": to_bf16(content),
        "int8": int8_static(content, frames[:2], "tensorrt", method="minmax"),
    }
    sizes = {form: len(build_plan(RTX, graph, SHAPE).content) for form, graph in forms.items()}
    assert max(sizes["fp16"], sizes["bf16"]) < 0.75 * sizes["fp32"], sizes
    assert sizes["int8"] < sizes["fp32"], sizes  # most of a small network's plan is kernels, and Q/DQ adds some


def test_batches_are_given_as_numbers() -> None:
    assert batches_of("8, 1,2,4,1") == (1, 2, 4, 8)
    for wrong in ("", "0", "1,x", "-2"):
        with pytest.raises(UsageError, match="--batch"):
            batches_of(wrong)


def test_the_equivalent_trtexec_command() -> None:
    options = PlanOptions(batches=(4,), level=5, workspace_mb=512, version_compatible=True, strip_weights=True, dla_core=0)
    assert trtexec(TENSORRT, (96, 96, 3), options) == (
        "trtexec --onnx=model.onnx --stronglyTyped --shapes=image:4x96x96x3 --saveEngine=model.plan "
        "--builderOptimizationLevel=5 "
        "--memPoolSize=workspace:512 --versionCompatible --stripWeights --useDLACore=0 --allowGPUFallback"
    )
    assert trtexec(RTX, (96, 96, 3)).startswith("tensorrt_rtx --onnx=")


@pytest.mark.parametrize(
    ("board", "error", "says"),
    [
        ("NVIDIA Jetson Orin Nano Developer Kit", EngineUnavailable, "part of JetPack .* --system-site-packages"),
        (None, MissingExtra, f"install it with: {re.escape(install_command('tensorrt'))}$"),
    ],
)
def test_a_missing_library_says_how_to_install_it(
    board: str | None, error: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setattr(tensorrt_plans, "board_name", lambda: board)
    with pytest.raises(error, match=says):
        load_builder(TENSORRT)
    with pytest.raises(MissingExtra, match="rtx"):
        load_builder(RTX)
