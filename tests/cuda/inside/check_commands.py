"""`build --target here`, `run` and `doctor` as on a Jetson, with a simulated TensorRT on the stand-in of the driver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorrt
from standin_fixtures import CUDA_LIBRARY, Driver
from typer.testing import CliRunner

import spatialnet_edge
from conftest import CLIP, SAMPLES
from spatialnet_edge.bundle.reader import Bundle, open_bundle
from spatialnet_edge.cli.app import app
from spatialnet_edge.core.errors import BuildError, EngineUnavailable
from spatialnet_optimize.build import labelled_data
from spatialnet_optimize.build.build import Job, build
from spatialnet_optimize.compilers.plan_builder import PlanOptions
from spatialnet_optimize.compilers.tensorrt_host import waiting

STEPS: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def judged_by_golden_frames_alone() -> Iterator[None]:
    """Without labelled images on the device, variants that passed on the host are tested with the golden frames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labelled_data, "shipped_samples", lambda: ())
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle prepared for the device, with only FP32 and FP16."""
    path = tmp_path_factory.mktemp("prepared") / "orin.snb"
    labelled = (SAMPLES / "ucmerced.zip",)
    bundle = build(Job(open_bundle("builtin:student"), "orin-nano", path, labelled=labelled, precision="fp16"))[0]
    assert list(waiting(bundle)) == ["fp32", "fp16"]
    return bundle


def finish(prepared: Bundle, path: Path, **options: object) -> Bundle:
    STEPS.clear()
    return build(Job(prepared, "here", path, plan=PlanOptions(**options)), STEPS.append)[0]


@pytest.fixture(scope="module")
def finished(prepared: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return finish(prepared, tmp_path_factory.mktemp("finished") / "orin.snb")


def test_the_device_finishes_the_bundle_and_records_itself(finished: Bundle) -> None:
    engine = finished.manifest.engines[0]
    assert (engine.backend, engine.device, engine.library_version) == ("tensorrt", "Orin", tensorrt.__version__)
    assert engine.built_on is not None
    assert engine.built_on.multiprocessors == 8
    assert (engine.version_compatible, engine.dla_core) == (False, None)
    report = finished.manifest.build
    assert report is not None
    assert [each.name for each in report.candidates] == ["fp32", "fp16"]
    assert all(each.executed == {"int8": 1} for each in report.candidates)  # the simulated inspector's result for every plan


def test_the_finished_bundle_runs_on_the_gpu_and_elsewhere_on_its_graph(finished: Bundle, driver: Driver, monkeypatch) -> None:
    before = driver.counts().launches
    with spatialnet_edge.load(finished.path) as model:
        assert model.opened.record.path.startswith("engines/tensorrt.")
        assert model.opened.rejected == ()
        image = np.zeros((96, 96, 3), np.uint8)
        assert model(image).land_use.confidence > 0
        assert driver.counts().launches > before
    monkeypatch.setenv("STANDIN_GIB", "64")
    with spatialnet_edge.load(finished.path) as model:
        assert model.opened.record.path == "model.onnx"
        assert "64.0 GiB" in model.opened.rejected[0]
    monkeypatch.setenv("STANDIN_GIB", "8")
    monkeypatch.setattr(tensorrt, "__version__", "10.16.1")
    with spatialnet_edge.load(finished.path) as model:
        assert model.opened.record.path == "model.onnx"
        assert "here 10.16.1" in model.opened.rejected[0]


def test_a_stripped_plan_is_opened_before_it_ships(prepared: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = finish(prepared, tmp_path / "stripped.snb", strip_weights=True)
    assert bundle.manifest.engines[0].weights in ("model.onnx", "graphs/fp16.onnx")
    assert "load the plan without weights, with the weights of its graph" in STEPS
    with spatialnet_edge.load(bundle.path) as model:
        assert model.opened.record.path.startswith("engines/tensorrt.")
    monkeypatch.setattr(tensorrt.OnnxParserRefitter, "refit_from_bytes", lambda refitter, graph: False)
    with pytest.raises(BuildError, match=r"the plan without weights does not load: .* build without --strip-weights"):
        finish(prepared, tmp_path / "broken.snb", strip_weights=True)
    assert not (tmp_path / "broken.snb").exists()


def test_a_version_compatible_bundle_survives_an_update_of_tensorrt(prepared: Bundle, tmp_path: Path, monkeypatch) -> None:
    bundle = finish(prepared, tmp_path / "orin.snb", version_compatible=True)
    assert bundle.manifest.engines[0].version_compatible
    monkeypatch.setattr(tensorrt, "__version__", "10.16.1")
    with spatialnet_edge.load(bundle.path) as model:
        assert model.opened.record.path.startswith("engines/tensorrt.")


def test_one_variant_that_fails_does_not_end_the_build(prepared: Bundle, tmp_path: Path, monkeypatch) -> None:
    real = tensorrt.Runtime.deserialize_cuda_engine
    plans: list[bytes] = []

    def refuse_the_second(runtime: tensorrt.Runtime, plan: bytes) -> tensorrt.Engine | None:
        plans.append(plan)
        return None if len(plans) == 2 else real(runtime, plan)

    monkeypatch.setattr(tensorrt.Runtime, "deserialize_cuda_engine", refuse_the_second)
    bundle = finish(prepared, tmp_path / "orin.snb")
    assert bundle.manifest.engines[0].precision == "fp32"
    assert bundle.manifest.build is not None
    assert "does not compile: TensorRT 10.3.0 cannot load this plan" in bundle.manifest.build.candidates[1].verdict


def test_a_plan_of_unknown_precision_does_not_pass(prepared: Bundle, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tensorrt.Inspector, "get_engine_information", lambda inspector, format: '{"Layers": ["all"]}')
    bundle = finish(prepared, tmp_path / "orin.snb")
    assert bundle.manifest.engines[0].precision == "fp32"
    assert bundle.manifest.build is not None
    assert "inspector reports no precisions" in bundle.manifest.build.candidates[1].verdict


def test_a_rejected_timing_cache_is_replaced(prepared: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    finish(prepared, tmp_path / "first.snb")
    (cache,) = (tmp_path / "cache").rglob("*.cache")
    assert cache.read_bytes() == b"measured;" * 2
    cache.write_bytes(b"torn")
    finish(prepared, tmp_path / "second.snb")
    assert cache.read_bytes() == b"measured;" * 2


def test_doctor_reports_the_gpu_and_a_working_tensorrt() -> None:
    done = CliRunner().invoke(app, ["doctor", "--json", "-"])
    assert done.exit_code == 0, done.output
    checks = {check["what"]: check for check in json.loads(done.output)}
    assert checks["backend tensorrt"]["works"], checks["backend tensorrt"]
    assert checks["backend tensorrt"]["found"] == "runs: TensorRT 10.3.0"
    gpu = checks["GPU"]
    assert gpu["works"]
    assert gpu["found"].startswith("Orin (compute capability 8.7, 8 multiprocessors, 8.0 GiB)")
    assert CUDA_LIBRARY in gpu["found"]


def test_the_commands_of_the_first_day(finished: Bundle, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", str(finished.path), str(CLIP), "--json", str(tmp_path / "results.jsonl")])
    assert done.exit_code == 0, done.output
    assert "tensorrt" in done.output
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) > 100
    done = CliRunner().invoke(app, ["inspect", str(finished.path)])
    assert done.exit_code == 0, done.output


def test_without_fallback_another_device_is_refused(finished: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_NAME", "Thor")
    with pytest.raises(EngineUnavailable, match="here Thor"):
        spatialnet_edge.load(finished.path, fallback=False)
