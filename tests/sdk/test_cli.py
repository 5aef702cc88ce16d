"""The command line as a user meets it: real processes, standard output, standard error and exit statuses."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from PIL import Image
from typer.testing import CliRunner

from conftest import CLIP, ROOT, SAMPLES, TINY, write_tiny_bundle
from spatialnet_benchmarks.latency import paced
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.cli.app import app
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.engines.fake import FakeEngine
from spatialnet_edge.sources.supervised import SupervisedSource

SYNTHETIC = "synthetic:frames=20&size=64x64"


def cli(*arguments: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from spatialnet_edge.cli.app import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=os.environ | {"COLUMNS": "200"})


def refused(status: int, *arguments: object) -> str:
    """Run a command and check the exit status, and that the error is one line without a traceback."""
    done = cli(*arguments)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    if status != 2:
        lines = [line for line in done.stderr.splitlines() if line.startswith("spatialnet-edge: ")]
        assert len(lines) == 1, done.stderr
        return lines[0]
    return done.stderr


def test_a_picture_over_the_limit_is_one_line_without_a_warning_of_pillow(tiny_path: Path, tmp_path: Path) -> None:
    for side in (9_500, 14_000):  # Pillow warns of the first, and refuses the second
        Image.new("1", (side, side)).save(tmp_path / "big.png")
        done = cli("run", tiny_path, tmp_path / "big.png")
        assert done.returncode == 78
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "too large" in done.stderr


def test_run_with_json_on_standard_output_writes_nothing_else_there(tiny_path: Path) -> None:
    done = cli("run", tiny_path, SYNTHETIC, "--json", "-")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["seq"] for record in records] == list(range(20))
    assert set(records[0]["predictions"]) == {"shade", "bands", "level"}
    assert "frames captured" in done.stderr


def test_run_prints_a_summary_that_balances_and_writes_log_and_video(tiny_path: Path, tmp_path: Path) -> None:
    log, video = tmp_path / "log.jsonl", tmp_path / "out.mp4"
    done = cli("run", tiny_path, CLIP, "--json", log, "--video", video, "--limit", 30, "--smooth", 0.5)
    assert done.returncode == 0, done.stderr
    assert "p99" in done.stdout
    assert len(log.read_text(encoding="utf-8").splitlines()) == 30
    assert video.stat().st_size > 100_000


def test_run_into_a_closed_pipe_ends_quietly(tiny_path: Path) -> None:
    program = f"from spatialnet_edge.cli.app import main; import sys; sys.argv[1:] = ['run', {str(tiny_path)!r}, "
    program += "'synthetic:frames=3000&size=32x32', '--json', '-']; main()"
    done = subprocess.run(
        f'{sys.executable} -c "{program}" | head -n 2', shell=True, capture_output=True, text=True, timeout=60
    )
    assert len(done.stdout.splitlines()) == 2
    assert "Traceback" not in done.stderr


def test_terminate_drains_and_exits_0(tiny_path: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    program = "from spatialnet_edge.cli.app import main; main()"
    arguments = ["run", str(tiny_path), "synthetic:frames=100000&size=64x64&fps=50", "--json", str(log)]
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and (not log.exists() or log.stat().st_size < 1000):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "frames captured" in output
    assert all(json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())


def test_a_recording_that_stops_half_way_exits_1_and_keeps_the_log(tiny_path: Path, tmp_path: Path) -> None:
    cut, log = tmp_path / "cut.mp4", tmp_path / "log.jsonl"
    cut.write_bytes(CLIP.read_bytes()[: CLIP.stat().st_size // 2])
    message = refused(1, "run", tiny_path, cut, "--json", log)
    assert "stopped after frame" in message
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [each["seq"] for each in records] == list(range(100))
    assert "stopped after frame 101 of 242" in message  # the last one, whose packet was cut, is a decode_error


def test_bad_input_is_refused_with_one_line(tiny_path: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "cut.snb").write_bytes(tiny_path.read_bytes()[:5000])
    (tmp_path / "empty").mkdir()
    assert "no such bundle" in refused(78, "run", "nowhere.snb", CLIP)
    assert "truncated" in refused(78, "run", tmp_path / "cut.snb", CLIP)
    assert "no such file" in refused(78, "run", tiny_path, "nowhere.mp4")
    assert "begins with b'hello'" in refused(78, "run", tiny_path, tmp_path / "text.mp4")
    assert "no image in this folder" in refused(78, "run", tiny_path, f"{tmp_path}/empty/")
    assert "no source 'carrier:'" in refused(78, "run", tiny_path, "carrier:pigeon")
    assert "not a spatialnet-edge bundle" in refused(78, "inspect", tmp_path / "empty")
    assert "neither a folder nor a readable zip" in refused(78, "evaluate", tiny_path, tmp_path / "nowhere")
    assert "ends at TensorRT 8.5" in refused(78, "build", tiny_path, "--target", "xavier-nx", "-o", tmp_path / "x.snb")


def test_wrong_usage_exits_2(tiny_path: Path, tmp_path: Path) -> None:
    assert "No such command" in refused(2, "fly")
    assert "Missing argument" in refused(2, "run")
    assert "no frame policy" in refused(2, "run", tiny_path, SYNTHETIC, "--policy", "newest")
    assert "no sink" in refused(2, "run", tiny_path, SYNTHETIC, "--sink", "telegraph:x")
    assert "no backend 'abacus'" in refused(2, "run", tiny_path, SYNTHETIC, "--backend", "abacus")
    assert "no target 'toaster'; available: here, cpu" in refused(2, "build", tiny_path, "--target", "toaster")
    assert "no head 'ships'" in refused(2, "build", tiny_path, "--heads", "ships", "-o", tmp_path / "x.snb")
    assert "no head 'ships'" in refused(2, "evaluate", tiny_path, SAMPLES / "eurosat.zip", "--heads", "ships")
    assert "ends in .snb" in refused(2, "build", tiny_path, "-o", tmp_path / "x.engine")


def test_inspect_shows_and_prints_json_and_schema(tiny_path: Path) -> None:
    shown = cli("inspect", tiny_path).stdout
    for expected in ("shade", "dark, bright", "regression", "model.onnx", "sha256", "unsigned"):
        assert expected in shown
    assert "0.53 to 80" in cli("inspect", "builtin:spatialnet-s").stdout  # metres per pixel of land_use
    assert json.loads(cli("inspect", tiny_path, "--json", "-").stdout)["spec"]["name"] == "tiny"
    assert json.loads(cli("inspect", "--schema").stdout)["$schema"].startswith("https://json-schema.org")


def test_doctor_reports_what_works_and_how_to_fix_the_rest() -> None:
    done = cli("doctor", "--json", "-")
    assert done.returncode == 0, done.stderr
    checks = {check["what"]: check for check in json.loads(done.stdout)}
    assert checks["backend onnxruntime"]["works"]
    assert checks["model builtin:spatialnet-s"]["works"]
    assert all(check["mend"] or check["found"] for check in checks.values() if not check["works"])
    assert "backend onnxruntime" in cli("doctor").stdout


def test_targets_lists_here_and_the_jetsons() -> None:
    shown = cli("targets").stdout
    for name in ("here", "cpu", "rtx", "orin-nano", "thor"):
        assert name in shown


def test_evaluate_reads_folders_and_names_what_it_skipped(tiny_path: Path, image_folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = cli("evaluate", tiny_path, image_folder, "--json", report)
    assert done.returncode == 0, done.stderr
    assert "broken.jpg" in done.stderr
    record = json.loads(report.read_text(encoding="utf-8"))
    assert record["broken"] == ["dark/broken.jpg"]
    (head,) = record["heads"]
    assert (head["head"], head["images"], head["accuracy"]) == ("shade", 6, 1.0)
    assert head["confusion"] == [[3, 0], [0, 3]]


def test_evaluate_refuses_labels_that_match_no_head(tiny_path: Path) -> None:
    message = refused(78, "evaluate", tiny_path, SAMPLES / "eurosat.zip")
    assert "its 10 classes match no head of tiny" in message
    assert "'shade' has no label 'AnnualCrop'" in message


def test_bench_gives_every_part_of_the_efficiency(tiny_path: Path, tmp_path: Path) -> None:
    report = tmp_path / "bench.json"
    done = cli("bench", tiny_path, "synthetic:frames=40&size=320x240", "--rounds", 2, "--json", report)
    assert done.returncode == 0, done.stderr
    record = json.loads(report.read_text(encoding="utf-8"))
    assert set(record["stages"]) == {"decode", "resize", "engine", "answer"}
    core_s = sum(record["stages"][name]["core_ms"] for name in ("decode", "resize", "engine")) / 1e3
    cores = len(os.sched_getaffinity(0))
    assert record["work_bound_frames_per_second"] == pytest.approx(cores / core_s, rel=0.02)
    ratio = record["frames_per_second"] / record["work_bound_frames_per_second"]
    assert record["pipeline_efficiency"] == pytest.approx(ratio, rel=0.02)


def test_bench_refuses_a_source_without_an_end(tiny_path: Path) -> None:
    assert "a live source has no end" in refused(2, "bench", tiny_path, "faulty:ok*1000000")


def test_a_bundle_that_fails_its_golden_test_does_not_run(tmp_path: Path) -> None:
    import msgspec

    from spatialnet_edge.bundle.writer import file_records, write_bundle

    bundle = write_tiny_bundle(tmp_path / "a.snb")
    contents = {record.path: bundle.read(record.path) for record in bundle.manifest.files}
    table = json.loads(contents["golden/expected.json"])
    table["shade"][0] = table["shade"][0][::-1]
    contents["golden/expected.json"] = json.dumps(table).encode()
    manifest = msgspec.structs.replace(bundle.manifest, files=file_records(contents))
    write_bundle(tmp_path / "a.snb", manifest, contents)
    assert "golden test failed: 'shade'" in refused(78, "run", tmp_path / "a.snb", SYNTHETIC)


def test_the_shipped_clip_exists() -> None:
    assert (ROOT / "samples" / "brighton_beach.mp4").stat().st_size < 8_000_000


def test_a_benchmark_records_its_environment_and_method(tiny_path: Path, tmp_path: Path) -> None:
    result, page = tmp_path / "a.json", tmp_path / "a.html"
    options = ("--rounds", 1, "--runs", 60, "--seconds", 1, "--rate", 50, "--json", result, "--html", page)
    done = cli("bench", tiny_path, "synthetic:frames=40&size=320x240", *options)
    assert done.returncode == 0, done.stderr
    record = json.loads(result.read_text(encoding="utf-8"))
    assert {"device", "machine", "power_mode", "clock_governor", "versions"} <= set(record["environment"])
    assert set(record["state"]) == {"start", "end"}
    assert record["bundle"] == open_bundle(tiny_path).sha256
    assert set(record["batches"]) == {"1", "2", "4", "8"}
    assert record["engine_alone"]["p50"] <= record["engine_alone"]["p99"] <= record["engine_alone"]["max"]
    assert len(record["samples"]["engine"]) == 60
    assert record["paced"]["rate"] == 50
    parts = [seconds for name, seconds in record["cold_start"].items() if name != "whole"]
    assert record["cold_start"]["whole"] == pytest.approx(sum(parts), rel=0.01)
    text = page.read_text(encoding="utf-8")
    assert "data:image/png;base64," in text
    assert "http" not in text  # self-contained
    assert "bench" in record["command"]


def test_a_damaged_picture_is_reported_and_a_run_without_results_fails(tiny_path: Path, image_folder: Path) -> None:
    done = cli("run", tiny_path, f"{image_folder}/", "--json", image_folder / "results.jsonl")
    assert done.returncode == 1
    assert "1 of its 7 frames could not be decoded" in done.stderr
    assert len((image_folder / "results.jsonl").read_text().splitlines()) == 6
    assert "broken.jpg" in "".join(done.stdout.replace("│", "").split())
    for file in image_folder.rglob("[0-9].jpg"):
        file.write_bytes(b"damaged")
    words = refused(1, "run", tiny_path, f"{image_folder}/")
    assert "none of its 7 frames was classified: 7 decode_error, the last:" in words


@pytest.mark.fault(80)
def test_each_broken_file_of_a_folder_is_a_line_of_its_own(tiny_path: Path, image_folder: Path) -> None:
    whole = next(iter(sorted(image_folder.rglob("[0-9].jpg")))).read_bytes()
    for index in range(25):
        (image_folder / f"cut{index:02d}.jpg").write_bytes(whole[: 200 + index])
    done = cli("run", tiny_path, f"{image_folder}/")
    assert done.returncode == 1
    assert "26 of its 32 frames could not be decoded" in done.stderr
    lines = [line for line in done.stdout.splitlines() if ".jpg" in line]
    named = [index for index in range(25) if any(f"cut{index:02d}.jpg" in line for line in lines)]
    assert named == list(range(20))
    assert "and 6 more, the last: " in done.stdout


def heed_ctrl_c() -> None:
    """A shell's background job, such as the tests with `&`, ignores SIGINT, and so do its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.fault(81)
def test_ctrl_c_ends_the_wait_for_an_absent_camera_at_once_and_leaves_no_traceback(tiny_path: Path) -> None:
    """The process group gets the signal, as from a terminal. No thread is waited for: the limit of that wait is a minute here."""
    program = (
        "from spatialnet_edge.runtime import capture; capture.Capture.close.__defaults__ = (60.0,); "
        "from spatialnet_edge.cli.app import main; main()"
    )
    command = [sys.executable, "-c", program, "run", str(tiny_path), "faulty:absent"]
    run = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    )
    assert run.stdout is not None
    for line in run.stdout:
        if "camera_absent" in line:
            break
    os.killpg(run.pid, signal.SIGINT)
    try:
        _, words = run.communicate(timeout=55)
    finally:
        run.kill()
    assert run.returncode == 0, words
    assert "Traceback" not in words


@pytest.mark.fault(81)
def test_a_capture_process_that_starts_is_not_in_the_group_that_ctrl_c_reaches() -> None:
    earlier = set(psutil.Process().children())  # other tests may have left helpers of their libraries
    source = SupervisedSource("faulty:slow")
    reader = threading.Thread(target=lambda: next(iter(source), None), daemon=True)
    reader.start()
    until = time.monotonic() + 30
    while not (children := set(psutil.Process().children()) - earlier) and time.monotonic() < until:
        time.sleep(0.01)
    assert [os.getpgid(child.pid) == child.pid for child in children] == [True]
    source.close()
    reader.join(timeout=20)


def test_bench_refuses_an_unreadable_source(tiny_path: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.jpg").write_bytes(b"\xff\xd8\xff damaged")
    assert "none of its first 100 frames can be read" in refused(78, "bench", tiny_path, tmp_path)


def test_two_results_are_compared_with_an_interval_and_a_careful_verdict(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)

    def result(name: str, scale: float, device: str = "Orin") -> Path:
        samples = {"engine": (scale * noise.gamma(50, 0.1, 400)).tolist(), "paced": [], "end_to_end": []}
        environment = {"device": device, "machine": "m", "power_mode": "15 W", "clock_governor": "performance"}
        (tmp_path / name).write_text(json.dumps({"samples": samples, "environment": environment}))
        return tmp_path / name

    one, same, faster = result("one.json", 1.0), result("same.json", 1.02), result("faster.json", 0.7, "Thor")
    shown = " ".join(cli("bench", "--compare", one, same).stdout.split())
    assert "no difference beyond 5%" in shown
    shown = " ".join(cli("bench", "--compare", one, faster).stdout.split())
    assert "b is faster" in shown
    assert "device differs: Orin and Thor" in shown
    assert "b is slower" in " ".join(cli("bench", "--compare", faster, one).stdout.split())
    (tmp_path / "single.json").write_text('{"samples": {"engine": [1.0]}, "environment": {}}')
    assert cli("bench", "--compare", one, tmp_path / "single.json").returncode == 0, "one sample has no interval"
    (tmp_path / "no.json").write_text("{}")
    assert "not a result of" in refused(78, "bench", "--compare", one, tmp_path / "no.json")


def test_a_stall_counts_for_every_frame_that_it_delays() -> None:
    """A 300 ms stall in a 50 Hz stream: measured from the due times, a dozen frames are late, not only one."""
    calls = 0

    def stalls(batch: np.ndarray) -> dict[str, np.ndarray]:
        nonlocal calls
        calls += 1
        if calls == 20:
            time.sleep(0.3)
        return engine._by_brightness(batch)

    engine = FakeEngine(TINY, stalls)
    model = SimpleNamespace(opened=SimpleNamespace(engine=engine))
    milliseconds = paced(model, 50, 2, "64x48")  # type: ignore[arg-type]
    assert len(milliseconds) == 100
    assert milliseconds.max() > 280
    assert (milliseconds > 50).sum() >= 10
    assert np.median(milliseconds) < 20


def test_a_first_frame_that_comes_late_is_late_and_makes_no_other_early(monkeypatch: pytest.MonkeyPatch) -> None:
    roll, calls = np.roll, 0

    def slow_at_first(field: np.ndarray, shift: int, axis: int) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 1:
            time.sleep(0.2)
        return roll(field, shift, axis)

    monkeypatch.setattr(np, "roll", slow_at_first)
    model = SimpleNamespace(opened=SimpleNamespace(engine=FakeEngine(TINY)))
    milliseconds = paced(model, 20, 1, "64x48")  # type: ignore[arg-type]
    assert milliseconds[0] > 190
    assert milliseconds.min() > 0
    assert np.median(milliseconds) < 50


def test_a_shipped_model_is_signed_into_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["keygen", "keys"]).exit_code == 0
    arguments = ["sign", "builtin:spatialnet-s", "--key", "keys/operations.key"]
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, UsageError)
    assert "write the signed bundle to another file with -o" in str(refused.exception)
    assert {path.name for path in tmp_path.iterdir()} == {"keys"}
    assert CliRunner().invoke(app, [*arguments, "-o", "signed.snb"]).exit_code == 0
    assert (tmp_path / "signed.snb").exists()
