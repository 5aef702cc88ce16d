"""A whole service as a process: its start, its health, its signals and its end."""

import json
import resource
import socket
import subprocess
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import CLIP
from service_fixtures import COMMAND, start, wait_for
from spatialnet_edge.bundle.slots import CURRENT, TRIAL, Slots
from spatialnet_edge.cli.app import app
from spatialnet_edge.core.atomic_io import write_durably
from spatialnet_edge.core.errors import ConfigRefused, Refused
from spatialnet_edge.service.config import load_service_config
from spatialnet_edge.service.health import read_health
from spatialnet_edge.sinks.journal_reader import read_journal


def test_a_health_file_is_replaced_whole_and_its_absence_is_told(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no health file"):
        read_health(tmp_path / "health.json")
    (tmp_path / "health.json").write_text("{")
    with pytest.raises(Refused, match="not a health file"):
        read_health(tmp_path / "health.json")
    write_durably(tmp_path / "new.json", b"1")
    write_durably(tmp_path / "new.json", b"2", sync=False)
    assert (tmp_path / "new.json").read_bytes() == b"2"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.fault(41)
def test_a_service_becomes_ready_proves_its_trial_drains_and_leaves(payload: Path) -> None:
    folder = payload.parent
    started = time.monotonic()
    service = start(payload)
    health = wait_for(folder / "health.json", lambda found: found.state == "READY")
    assert time.monotonic() - started < 15
    assert health.on_trial
    wait_for(folder / "health.json", lambda found: not found.on_trial and found.golden_rounds >= 1)
    assert Slots(folder / "root").target(TRIAL) is None
    assert Slots(folder / "root").target(CURRENT) is not None
    assert CliRunner().invoke(app, ["health", "--file", str(folder / "health.json")]).exit_code == 0
    second = subprocess.run([*COMMAND, "serve", "--config", str(payload)], capture_output=True, text=True, check=False)
    assert second.returncode == 78
    assert f"held by pid {service.pid}" in second.stderr
    asked = time.monotonic()
    service.terminate()
    assert service.wait(10) == 0
    assert time.monotonic() - asked < 5
    last = read_health(folder / "health.json")
    assert last.state == "STOPPED"
    ledger = last.sources["synthetic:frames=100000&size=64x48&fps=50"]["ledger"]
    assert ledger["in_flight"] == 0
    assert ledger["captured"] == ledger["emitted"] + sum(ledger["skipped"].values())
    results = [json.loads(r) for reading in read_journal(folder / "results") for r in reading.records]
    assert {each["bundle"] for each in results} == {health.sha256[:16]}
    logged = [each["seq"] for each in results]
    assert len(logged) == ledger["emitted"]
    assert logged == sorted(logged)
    told = [json.loads(r) for reading in read_journal(folder / "root" / "events") for r in reading.records]
    events = [each["event"] for each in told]
    assert next(each for each in told if each["event"] == "marked_good")["bundle"] == health.sha256[:16]
    assert [events[0], events[-1]] == ["start", "stop"]
    assert "marked_good" in events
    assert not (folder / "root" / "starts.json").exists()


@pytest.mark.fault(41)
def test_after_sigkill_every_record_is_readable_and_the_lock_is_free(payload: Path) -> None:
    folder = payload.parent
    service = start(payload)
    wait_for(folder / "health.json", lambda found: found.state == "READY" and found.up_s > 2)
    service.kill()
    service.wait()
    logged = [json.loads(r)["seq"] for reading in read_journal(folder / "results") for r in reading.records]
    assert len(logged) > 40
    again = start(payload)
    wait_for(folder / "health.json", lambda found: found.pid == again.pid and found.state == "READY")
    again.terminate()
    assert again.wait(10) == 0
    assert sum(reading.damaged for reading in read_journal(folder / "results")) == 0


@pytest.mark.fault(3)
def test_a_service_without_its_camera_is_degraded_and_alive(payload: Path) -> None:
    folder = payload.parent
    text = payload.read_text().replace("synthetic:frames=100000&size=64x48&fps=50", "faulty:absent")
    payload.write_text(text)
    service = start(payload)
    found = wait_for(folder / "health.json", lambda found: found.state == "DEGRADED" and found.up_s > 2)
    assert found.why == ("no frames from faulty:absent",)
    working = CliRunner().invoke(app, ["health", "--file", str(folder / "health.json")])
    strict = CliRunner().invoke(app, ["health", "--strict", "--file", str(folder / "health.json")])
    assert (working.exit_code, strict.exit_code) == (1, 1)
    service.terminate()
    assert service.wait(10) == 0


def test_systemd_is_told_ready_alive_and_stopping(payload: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(0.3)
        service = start(payload, NOTIFY_SOCKET=str(tmp_path / "notify"))
        until = time.monotonic() + 60
        while service.poll() is None:
            if time.monotonic() > until:
                service.terminate()
                until = float("inf")
            try:
                heard.append(server.recv(1000).decode())
            except TimeoutError:
                continue
            if heard[-1] == "READY=1":
                until = time.monotonic() + 3
    assert service.wait(10) == 0
    assert "READY=1" in heard
    assert heard.count("WATCHDOG=1") >= 3
    assert "STOPPING=1" in heard
    assert any(line.startswith("STATUS=READY") for line in heard)


@pytest.mark.fault(43)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[[sources]]", "colour = 1\n[[sources]]"), "unknown key 'colour'; valid keys:"),
        (("smooth_s = 0.2", 'policy = "sometimes"'), "no frame policy"),
        (('"null:"', '"telegraph:x"'), "no sink"),
        (("allow_unsigned = true", ""), "this computer has no trusted keys"),
        (("results", "payload.toml/results"), "cannot be written by user"),
        (("health.json", "payload.toml/health.json"), "cannot be written by user"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(payload: Path, change: tuple[str, str], message: str) -> None:
    payload.write_text(payload.read_text().replace(*change))
    done = subprocess.run(
        [*COMMAND, "serve", "--config", str(payload)], capture_output=True, text=True, check=False, timeout=60
    )
    assert message in done.stderr
    assert done.returncode == 78
    assert len([line for line in done.stderr.splitlines() if line.startswith("spatialnet-edge:")]) == 1


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ('uri = "synthetic:frames=100000&size=64x48&fps=50"', "the source 'synthetic:.*' occurs 2 times"),
        (
            'uri = "1"\nsinks = ["mqtt://a/b", "log:{folder}/results?total_mb=1"]',
            "the sink's place '.*results' occurs 2 times",
        ),
    ],
)
def test_two_cameras_do_not_share_a_name_or_a_log(payload: Path, second: str, message: str) -> None:
    second = second.replace("{folder}", str(payload.parent))
    payload.write_text(payload.read_text().replace("[health]", f"[[sources]]\n{second}\n[health]"))
    with pytest.raises(ConfigRefused, match=message):
        load_service_config(payload)


def test_a_configuration_is_checked_without_running(payload: Path) -> None:
    assert "the configuration is valid" in CliRunner().invoke(app, ["serve", "--config", str(payload), "--check"]).output
    with pytest.raises(ConfigRefused, match="cannot be read"):
        load_service_config(payload.parent / "missing.toml")


def test_a_service_on_a_file_ends_by_itself(payload: Path) -> None:
    payload.write_text(payload.read_text().replace("synthetic:frames=100000&size=64x48&fps=50", str(CLIP)))
    done = subprocess.run(
        [*COMMAND, "serve", "--config", str(payload)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "all frames in flight were finished" in done.stderr


def test_several_cameras_share_one_engine_and_one_that_fails_costs_the_others_nothing(payload: Path) -> None:
    folder = payload.parent
    text = payload.read_text().replace(
        "[health]",
        f"""[[sources]]
uri = "faulty:ok*20,lost|absent"
sinks = ["jsonl:{folder}/second.jsonl"]
[engine]
batch = 2
[health]""",
    )
    payload.write_text(text)
    service = start(payload, FAULTY_STATE=str(folder / "lives"))
    first, second = "synthetic:frames=100000&size=64x48&fps=50", "faulty:ok*20,lost|absent"
    health = wait_for(
        folder / "health.json",
        lambda found: found.state == "DEGRADED" and found.sources.get(first, {}).get("ledger", {}).get("emitted", 0) > 100,
    )
    service.terminate()
    assert service.wait(10) == 0
    assert health.why == (f"no frames from {second}",)
    assert health.sources[first]["delivering"]
    assert 0 < health.sources[second]["ledger"]["emitted"] <= 20
    assert len((folder / "second.jsonl").read_text().splitlines()) == health.sources[second]["ledger"]["emitted"]


@pytest.mark.fault(44)
def test_out_of_descriptors_the_process_leaves_with_an_error_and_its_log_is_whole(payload: Path) -> None:
    folder = payload.parent
    payload.write_text(payload.read_text().replace("synthetic:frames=100000&size=64x48&fps=50", "faulty:ok*50,lost"))
    service = start(payload)
    wait_for(folder / "health.json", lambda found: found.state == "READY")
    resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (3, 3))  # open descriptors stay; the next camera needs more
    assert service.wait(30) == 1
    assert sum(reading.damaged for reading in read_journal(folder / "results")) == 0
