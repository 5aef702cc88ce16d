"""Full disks: a service, a run and a video continue as far as possible and report it."""

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import TINY, write_tiny_bundle
from service_fixtures import ANY, COMMAND, Disk, fill, records, result, start, wait_for
from spatialnet_edge.bundle.slots import Slots
from spatialnet_edge.core.errors import SinkError
from spatialnet_edge.core.frames import Frame
from spatialnet_edge.core.results import assemble
from spatialnet_edge.sinks.journal import Journal
from spatialnet_edge.sinks.journal_reader import read_journal
from spatialnet_edge.sinks.log import LogSink
from spatialnet_edge.sinks.queued import QueuedSink
from spatialnet_edge.sinks.registry import open_sink
from spatialnet_edge.sources.registry import open_source


@pytest.mark.fault(38)
def test_a_service_starts_on_a_full_disk_and_writes_again_when_there_is_room(payload: Path, small_disk: Path) -> None:
    """The service must start again after the log has filled the card."""
    lines = small_disk / "results.jsonl"
    lines.write_text('{"seq":0,"torn by the full di')
    text = payload.read_text().replace('"null:"', f'"jsonl:{lines}"').replace(str(payload.parent / "r"), str(small_disk / "r"))
    payload.write_text(text)
    Slots(small_disk / "root").install(payload.parent / "tiny.snb", ANY)
    hog = fill(small_disk)
    health = payload.parent / "health.json"
    service = start(payload)
    source = "synthetic:frames=100000&size=64x48&fps=50"
    full = wait_for(health, lambda found: found.sources.get(source, {}).get("ledger", {}).get("emitted", 0) > 50)
    assert (full.state, full.events["start_not_counted"], full.events["disk_full"]) == ("READY", 1, 1)
    hog.unlink()
    wait_for(health, lambda found: found.events.get("disk_free") == 1 and found.events.get("sink_back", 0) >= 1)
    time.sleep(1)
    service.terminate()
    assert service.wait(10) == 0
    assert sum(len(reading.records) for reading in read_journal(small_disk / "results")) > 20
    torn, *whole = lines.read_text().splitlines()
    assert torn.endswith("full di")
    assert len([json.loads(line) for line in whole if line.endswith("}")]) > 20


@pytest.mark.fault(38)
@pytest.mark.parametrize("small_disk", ["400k,nr_inodes=1"], indirect=True)
def test_a_folder_that_a_full_disk_has_no_place_for_is_made_when_there_is_room(small_disk: Path) -> None:
    told: list[str] = []
    journal = Journal(small_disk / "results", report=lambda kind, detail: told.append(kind))
    assert not journal.append({"n": 0})
    with pytest.raises(SinkError, match="No space left"):
        open_sink(f"video:{small_disk / 'videos' / 'flight.mp4'}")
    subprocess.run(["mount", "-o", "remount,nr_inodes=20", str(small_disk)], check=True)
    assert journal.append({"n": 1})
    journal.close()
    assert told == ["disk_full", "disk_free"]
    assert journal.lost == 1
    assert records(small_disk / "results") == [1]


@pytest.mark.fault(38)
@pytest.mark.parametrize("small_disk", ["400k,nr_inodes=1"], indirect=True)
def test_a_service_starts_though_its_new_log_folder_has_no_place(payload: Path, small_disk: Path) -> None:
    results = small_disk / "new"
    payload.write_text(payload.read_text().replace(f"log:{payload.parent / 'results'}", f"log:{results}"))
    service = start(payload)
    health = payload.parent / "health.json"
    full = wait_for(health, lambda found: found.events.get("disk_full") == 1 and found.state == "READY")
    assert not results.exists()
    assert sum(source["ledger"]["emitted"] for source in full.sources.values()) > 0
    subprocess.run(["mount", "-o", "remount,nr_inodes=20", str(small_disk)], check=True)
    wait_for(health, lambda found: found.events.get("disk_free") == 1)
    service.terminate()
    assert service.wait(10) == 0
    assert sum(len(reading.records) for reading in read_journal(results)) > 0


@pytest.mark.fault(38)
def test_a_run_says_what_a_full_disk_cost(small_disk: Path, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "tiny.snb")
    fill(small_disk)
    arguments = ["run", str(tmp_path / "tiny.snb"), "synthetic:frames=40&size=64x48", "--sink", f"log:{small_disk / 'log'}"]
    done = subprocess.run([*COMMAND, *arguments, "--sink", "null:"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0
    assert done.stdout.count("disk_full: ") == 1
    assert re.search(r"log: lost\W+40\W", done.stdout)
    assert "null" not in done.stdout


@pytest.mark.fault(38)
@pytest.mark.parametrize("small_disk", ["400k", "10m"], indirect=True)
def test_a_video_ends_before_the_disk_is_full_and_can_be_read(small_disk: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    rows = {"shade": np.array([0.2, 0.8]), "bands": np.array([0.9, 0.1, 0.7]), "level": np.array([3.0])}
    sink = open_sink(f"video:{small_disk / 'flight.mp4'}")
    written: list[int] = []

    def write_for_ever() -> None:
        for seq in range(10_000):
            sink.write(assemble(TINY, Frame(noise, seq, "tests"), rows, 1.0, ()))
            written.append(seq)

    with pytest.raises(SinkError, match="bytes are free on that disk"):
        write_for_ever()
    sink.close()
    video = small_disk / "flight.mp4"
    assert video.exists() == bool(written) == (shutil.disk_usage(small_disk).total > 1 << 20)
    if written:
        assert sum(1 for _ in open_source(str(video))) == len(written)


@pytest.mark.fault(38)
def test_a_full_disk_is_an_event_of_the_service(tmp_path: Path) -> None:
    told: list[str] = []
    sink = LogSink(str(tmp_path))
    queued = QueuedSink(sink, wait=False, report=lambda kind, detail: told.append(kind), name="log")
    sink.journal._write = Disk(room=0).write
    for seq in range(5):
        queued.write(result(seq))
    queued.close()
    assert told == ["disk_full"]
    assert queued.figures() == {"dropped": 0, "lost": 5}
