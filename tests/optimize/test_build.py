"""The whole build on the shipped student: candidates, gates, the bundle that comes out, and NVIDIA's own compiler."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import spatialnet_edge
from conftest import CLIP, SAMPLES, TINY, shipped_graph, tiny_graph, write_tiny_bundle
from spatialnet_edge.bundle.reader import Bundle, open_bundle
from spatialnet_edge.core.errors import BuildError, DataRefused, EngineUnavailable, MissingExtra, UsageError
from spatialnet_optimize.build.build import Job, build
from spatialnet_optimize.build.labelled_data import disambiguate, usable_sets
from spatialnet_optimize.compilers.plan_builder import RTX, PlanOptions, build_plan
from spatialnet_optimize.evaluation.candidate_evaluation import Evidence, decoded, evidence_of, measure_candidates
from spatialnet_optimize.evaluation.gates import refusal
from spatialnet_optimize.quantization.int8 import int8_dynamic
from spatialnet_training.data.labelled_dataset import LabelledImages, open_labelled


def judged_by(model: Bundle, sets: Sequence[LabelledImages] = ()) -> Evidence:
    return evidence_of(model, model.spec, decoded(sets, model.spec.input))


@pytest.fixture(scope="module")
def student() -> Bundle:
    return open_bundle("builtin:student")


@pytest.fixture(scope="module")
def built(student: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build(Job(student, "here", tmp_path_factory.mktemp("built") / "landuse.snb"))[0]


def test_the_report_has_every_candidate_with_its_reason(built: Bundle) -> None:
    report = built.manifest.build
    assert report is not None
    assert [record.name for record in report.candidates] == ["fp32", "int8-dynamic", "int8-static"]
    assert sum(record.chosen for record in report.candidates) == 1
    assert all(record.verdict and record.latency_ms > 0 for record in report.candidates)
    assert report.labelled_images == 240  # a third of the samples was set aside
    assert report.calibration == "84 images set aside from eurosat, ucmerced"
    heads = {"land_use_eurosat (eurosat)", "land_use_ucmerced (ucmerced)", "objects (ucmerced)", "object_kinds (ucmerced)"}
    heads |= {f"{head} ({data_set})" for head in ("land_use", "settlement") for data_set in ("eurosat", "ucmerced")}
    assert all(set(record.accuracy) == heads for record in report.candidates)
    winner = next(record for record in report.candidates if record.chosen)
    allowed = max(report.budget_points, 100 / 40)  # one of the 40 images of ucmerced may change
    assert winner.loss_points <= allowed
    assert winner.name in report.reason


def test_without_opencv_a_host_refuses_and_a_device_finishes_a_prepared_bundle(
    student: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "spatialnet_training.data.not_land", raising=False)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtra, match=r"'cv2' .*\[opencv\]"):
        judged_by(student)
    assert evidence_of(student, student.spec, [], prepared=True).not_land is None


def test_the_built_bundle_runs_and_agrees_with_the_reference(built: Bundle, student: Bundle) -> None:
    frames, expected = student.golden()
    with spatialnet_edge.load(built.path) as model:
        assert model.golden.passed
        for frame, wanted in zip(frames, expected["land_use"], strict=True):
            found = model(frame).land_use.probabilities
            assert np.abs(found - wanted).max() <= built.manifest.golden.tolerance


def test_dynamic_int8_is_smaller_and_keeps_its_answers(student: Bundle) -> None:
    graph = shipped_graph()
    quantised = int8_dynamic(graph)
    assert len(quantised) < 0.6 * len(graph)
    kinds = [node.op_type for node in onnx.load_from_string(quantised).graph.node]
    assert kinds.count("MatMulInteger") >= 16
    assert "ConvInteger" not in kinds
    images = open_labelled(SAMPLES / "eurosat.zip")
    few = images.chosen(range(0, len(images), 5))
    measured = measure_candidates({"fp32": graph, "int8-dynamic": quantised}, judged_by(student, [few]), lambda text: None)
    assert refusal(measured[1], measured[0], 0.5) is None
    assert 0 < measured[1].golden_difference < 0.05


def test_a_ruined_candidate_is_caught_by_the_gate(student: Bundle) -> None:
    model = onnx.load_from_string(shipped_graph())
    weights = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2]
    largest = max(weights, key=lambda tensor: int(np.prod(tensor.dims)))
    values = onnx.numpy_helper.to_array(largest)
    largest.CopyFrom(onnx.numpy_helper.from_array(np.round(values * 2) / 2, largest.name))  # about one bit is left
    contents = {"fp32": shipped_graph(), "int8-dynamic": model.SerializeToString()}
    sets = [open_labelled(SAMPLES / "eurosat.zip")]
    evidence = judged_by(student, sets)
    measured = measure_candidates(contents, evidence, lambda text: None)
    assert refusal(measured[1], measured[0], 0.5)


def test_two_sets_of_one_name_are_both_evaluated(student: Bundle, tmp_path: Path) -> None:
    """Results are listed by the name of a set, so equal names would hide a loss."""
    for site in ("north", "south"):
        (tmp_path / site).mkdir()
        (tmp_path / site / "images.zip").write_bytes((SAMPLES / "ucmerced.zip").read_bytes())
    sets, _ = usable_sets([tmp_path / site / "images.zip" for site in ("north", "south")], student.spec, asked=True)
    assert len({images.name for images in disambiguate(sets)}) == 2
    evidence = judged_by(student, disambiguate(sets))
    (measured,) = measure_candidates({"fp32": student.read("model.onnx")}, evidence, lambda text: None)
    assert {key for key in measured.accuracy if key.startswith("objects")} == {
        f"objects ({tmp_path / site / 'images.zip'})" for site in ("north", "south")
    }


def test_unrequested_heads_are_removed(student: Bundle, tmp_path: Path) -> None:
    job = Job(student, "cpu", tmp_path / "two.snb", heads=("settlement", "land_use"))
    bundle, _ = build(job)
    assert [head.name for head in bundle.spec.heads] == ["settlement", "land_use"]
    outputs = onnx.load_from_string(bundle.read("model.onnx")).graph.output
    assert [value.name for value in outputs] == ["settlement", "land_use", "known"]
    result = next(iter(spatialnet_edge.stream(bundle.path, str(CLIP))))
    assert set(result.predictions) == {"settlement", "land_use"}


def test_a_real_plan_is_built_without_a_gpu_and_the_graph_is_the_fallback(student: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    bundle, decision = build(Job(student, "rtx", tmp_path / "rtx.snb"))
    record = bundle.manifest.engines[0]
    assert (record.backend, record.portable) == ("tensorrt_rtx", False)
    assert record.library_version
    assert len(bundle.read(record.path)) > 1_000_000
    assert record.precision == "fp16"
    verdicts = {each.name: each.verdict for each in decision.records}
    assert list(verdicts) == ["fp32", "fp16", "bf16", "int8-qdq", "int8-qdq-fp16"]
    assert "not timed: no GPU" in verdicts["fp16"]
    assert "not evaluated" in verdicts["bf16"]
    sizes = {each.name: each.size for each in decision.records}
    assert sizes["fp16"] < 0.75 * sizes["fp32"]
    assert sizes["bf16"] < 0.75 * sizes["fp32"]
    assert sizes["int8-qdq"] < 0.85 * sizes["fp32"]
    assert all(each.agreement > 0.96 for each in decision.records if each.name != "bf16")
    with spatialnet_edge.load(bundle.path) as model:
        assert model.opened.record.path == "model.onnx"
        assert len(model.opened.rejected) == 1


def test_the_compiler_names_the_node_that_it_refuses() -> None:
    pytest.importorskip("tensorrt_rtx")
    model = onnx.load_from_string(tiny_graph())
    model.graph.node[-1].op_type = "NoSuchOperator"
    with pytest.raises(BuildError, match="NoSuchOperator"):
        build_plan(RTX, model.SerializeToString(), TINY.input.shape)


def test_a_users_own_model_builds_with_own_images(tmp_path: Path, image_folder: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny.snb")
    steps: list[str] = []
    built, decision = build(Job(bundle, "cpu", tmp_path / "out.snb", labelled=(image_folder,)), steps.append)
    assert decision.records[0].accuracy == {"shade (images)": 1.0}
    assert built.manifest.build is not None
    assert built.manifest.build.labelled_images == 4
    assert "warning: 2 calibration images; with fewer than 64 the INT8 ranges are not reliable" in steps


def test_without_matching_labels_the_build_warns_that_accuracy_is_not_gated(tmp_path: Path) -> None:
    steps: list[str] = []
    build(Job(write_tiny_bundle(tmp_path / "tiny.snb"), "cpu", tmp_path / "out.snb"), steps.append)
    assert any("only agreement on the golden frames is gated, not accuracy" in step for step in steps)


def test_the_search_excludes_sensitive_layers(tmp_path: Path, student: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers that the gate allows are quantised, the least sensitive first, and the report has the curve."""
    from spatialnet_optimize.build import variants as forms
    from spatialnet_optimize.quantization import sensitivity
    from spatialnet_optimize.quantization.int8 import linear_layers

    few = linear_layers(shipped_graph())[::5]
    monkeypatch.setattr(sensitivity, "linear_layers", lambda content: few)

    steps: list[str] = []
    job = Job(student, "cpu", tmp_path / "out.snb", precision="fp32", labelled=(SAMPLES / "ucmerced.zip",), search=True)
    bundle, decision = build(job, steps.append)
    assert [record.name for record in decision.records] == ["fp32", "int8-partial"]
    assert bundle.manifest.build is not None
    curve = bundle.manifest.build.sensitivity
    assert {each.layer for each in curve} == set(few)
    assert [each.change for each in curve] == sorted(each.change for each in curve)
    quantised = [each.quantised for each in curve]
    assert quantised == sorted(quantised, reverse=True)  # the least sensitive first
    assert any(step.startswith("search: ") for step in steps)
    monkeypatch.setattr(forms, "refusal", lambda candidate, reference, budget: "never")
    bundle, _ = build(job)
    assert bundle.manifest.build is not None
    assert not any(each.quantised for each in bundle.manifest.build.sensitivity)


@pytest.mark.parametrize(
    ("target", "plan", "why"),
    [
        ("cpu", PlanOptions(batches=(1, 4)), "has none"),
        ("orin-nano", PlanOptions(level=5), "on the device"),
        ("rtx", PlanOptions(strip_weights=True), "only with a GPU"),
    ],
)
def test_options_without_effect_are_refused(target: str, plan: PlanOptions, why: str, tmp_path: Path) -> None:
    job = Job(write_tiny_bundle(tmp_path / "tiny.snb"), target, tmp_path / "out.snb", plan=plan)
    with pytest.raises(UsageError, match=why):
        build(job)


def test_a_single_precision_can_be_requested(tmp_path: Path) -> None:
    job = Job(write_tiny_bundle(tmp_path / "tiny.snb"), "cpu", tmp_path / "out.snb", precision="fp32")
    assert [record.name for record in build(job)[1].records] == ["fp32"]


def test_what_cannot_be_built_is_refused_before_any_work(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny.snb")
    job = Job(bundle, "cpu", tmp_path / "out.snb")
    with pytest.raises(UsageError, match="no target 'toaster'"):
        build(replace(job, target="toaster"))
    with pytest.raises(EngineUnavailable, match="Jetson Xavier NX"):
        build(replace(job, target="xavier-nx"))
    with pytest.raises(UsageError, match="fp8 on orin-nano"):
        build(replace(job, target="orin-nano", precision="fp8"))
    with pytest.raises(UsageError, match="DLA on cpu"):
        build(replace(job, plan=PlanOptions(dla_core=0)))
    with pytest.raises(UsageError, match="no head 'ships'; this model has shade, bands, level"):
        build(replace(job, heads=("ships",)))
    with pytest.raises(DataRefused, match="match no head of tiny"):
        build(replace(job, labelled=(SAMPLES / "eurosat.zip",)))
    assert not (tmp_path / "out.snb").exists()


def test_the_command_builds_reports_and_the_report_is_in_the_bundle(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from spatialnet_edge.cli.app import app

    out, report = tmp_path / "landuse.snb", tmp_path / "report.json"
    arguments = ["build", "builtin:student", "--target", "here", "-o", str(out), "--report", str(report)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "why: " in result.output
    written = json.loads(report.read_text(encoding="utf-8"))
    assert written["identity"] == open_bundle(out).sha256
    assert {candidate["name"] for candidate in written["build"]["candidates"]} == {"fp32", "int8-dynamic", "int8-static"}


def test_the_report_is_a_self_contained_page(built: Bundle, student: Bundle, tmp_path: Path) -> None:
    from spatialnet_optimize.report.html_report import write_page

    write_page(built, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 4  # no search, so no curve
    for said in ("int8-static", "On poor pictures", "predicted, not measured", "84 images set aside", built.sha256[:16]):
        assert said in page
    assert "http" not in page
    assert "{{" not in page
    with pytest.raises(UsageError, match="has no build report"):
        write_page(student, tmp_path / "none.html")


def test_a_build_decodes_each_labelled_image_once_for_each_purpose(
    student: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once at the model's size, and once more at its own size if it is corrupted; a search adds nothing."""
    from spatialnet_optimize.build import variants
    from spatialnet_optimize.quantization import sensitivity
    from spatialnet_optimize.quantization.int8 import linear_layers

    few = linear_layers(shipped_graph())[::20]
    monkeypatch.setattr(sensitivity, "linear_layers", lambda content: few)
    monkeypatch.setattr(variants, "refusal", lambda candidate, reference, budget: "never")  # the search takes every step
    files: list[str] = []
    decode = LabelledImages.decode

    def counted(images: LabelledImages, file: str, *arguments: Any) -> Any:
        files.append(file)
        return decode(images, file, *arguments)

    monkeypatch.setattr(LabelledImages, "decode", counted)
    samples = (SAMPLES / "ucmerced.zip",)
    build(Job(student, "cpu", tmp_path / "out.snb", precision="fp32", labelled=samples, search=True))
    times = Counter(files)
    assert len(times) == len(open_labelled(samples[0])) == 60
    assert Counter(times.values()) == {1: 20, 2: 40}  # a third is for calibration, which corrupts none


def test_variants_are_timed_only_if_their_time_is_used(
    student: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that prepares a bundle for a device does not use its own CPU's latency."""
    from spatialnet_optimize.evaluation import candidate_evaluation

    timed: list[int] = []
    latencies = candidate_evaluation.latencies

    def counted(engines: Any, images: Any) -> Any:
        timed.append(len(engines))
        return latencies(engines, images)

    monkeypatch.setattr(candidate_evaluation, "latencies", counted)
    _, decision = build(Job(student, "orin-nano", tmp_path / "nano.snb", precision="fp16"))
    assert timed == []
    assert {each.latency_ms for each in decision.records} == {0}
    build(Job(student, "cpu", tmp_path / "cpu.snb", precision="fp32"))
    assert timed == [1]
