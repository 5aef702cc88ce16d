"""Bundles that are refused at the start, on trial or after damage on disk."""

import json
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from conftest import tiny_graph
from service_fixtures import ANY, COMMAND, start, wait_for
from spatialnet_edge.bundle.keys import write_key_pair
from spatialnet_edge.bundle.reader import Bundle, open_bundle
from spatialnet_edge.bundle.slots import CURRENT, MAX_TRIES, PREVIOUS, TRIAL, Slots
from spatialnet_edge.bundle.writer import file_records, write_bundle
from spatialnet_edge.core.errors import BundleError
from spatialnet_edge.service.camera_worker import stream_options
from spatialnet_edge.service.config import SourceSection
from spatialnet_edge.service.crash_loop import MAX_STARTS, count_start
from spatialnet_edge.sinks.journal_reader import read_journal


def flown(payload: Path) -> tuple[Slots, Bundle, dict[str, bytes]]:
    """Slots with the installed bundle marked good, that bundle, and its files for making another one."""
    slots = Slots(payload.parent / "root")
    slots.mark_good(slots.choose()[0])
    good = open_bundle(payload.parent / "tiny.snb", ANY)
    return slots, good, {record.path: good.read(record.path) for record in good.manifest.files}


def followed(payload: Path) -> tuple[Slots, Bundle]:
    """Slots with a later release (serial 5) marked good, and the previous bundle."""
    slots, good, files = flown(payload)
    later = msgspec.structs.replace(good.manifest, serial=5)
    slots.install(write_bundle(payload.parent / "next.snb", later, files).path, ANY)
    slots.mark_good(slots.choose()[0])
    return slots, good


@pytest.mark.fault(29)
def test_a_trial_with_wrong_outputs_is_rolled_back_at_the_start(payload: Path, tmp_path: Path) -> None:
    folder = payload.parent
    slots, good, files = flown(payload)
    files["model.onnx"] = tiny_graph(gain=0.01)
    wrong = msgspec.structs.replace(good.manifest, files=file_records(files), serial=9)
    slots.install(write_bundle(tmp_path / "wrong.snb", wrong, files).path, ANY)
    service = start(payload)
    found = wait_for(folder / "health.json", lambda found: found.state == "READY")
    service.terminate()
    assert service.wait(10) == 0
    assert found.serial == good.manifest.serial
    assert found.events["trial_refused"] == 1
    assert slots.target(TRIAL) is None


@pytest.mark.fault(17)
def test_a_damaged_current_bundle_is_replaced_by_the_previous_one(payload: Path) -> None:
    folder = payload.parent
    slots, good = followed(payload)
    model = slots.root / CURRENT / "model.onnx"
    model.write_bytes(b"\0" + model.read_bytes()[1:])
    service = start(payload)
    found = wait_for(folder / "health.json", lambda found: found.state == "DEGRADED" and found.up_s > 3)
    service.terminate()
    assert service.wait(10) == 0
    assert (found.serial, found.on_trial) == (good.manifest.serial, False)
    assert found.events["bundle_refused"] == 1
    assert found.why == ("the current bundle is refused; the previous one is used",)
    (slots.root / PREVIOUS).unlink()
    alone = subprocess.run([*COMMAND, "serve", "--config", str(payload)], capture_output=True, text=True, check=False)
    assert alone.returncode == 78
    assert "model.onnx" in alone.stderr


def test_a_trial_stopped_on_request_keeps_its_tries(payload: Path) -> None:
    folder = payload.parent
    payload.write_text(payload.read_text().replace("mark_good_s = 2.5", "mark_good_s = 600"))
    for _ in range(MAX_TRIES + 1):
        service = start(payload)
        found = wait_for(folder / "health.json", lambda found, pid=service.pid: found.pid == pid and found.state == "READY")
        assert found.on_trial
        service.terminate()
        assert service.wait(10) == 0
    assert Slots(folder / "root").state.tries == 0


@pytest.mark.fault(55)
@pytest.mark.parametrize("compatible", [False, True])
def test_a_trial_of_another_model_needs_compatible_in_the_configuration(
    payload: Path, tmp_path: Path, compatible: bool
) -> None:
    """The service's configuration decides, whatever options `install` was given."""
    slots, good, files = flown(payload)
    other = msgspec.structs.replace(good.manifest, spec=msgspec.structs.replace(good.spec, name="other"), serial=9)
    slots.install(write_bundle(tmp_path / "other.snb", other, files).path, ANY, compatible=("other",))
    if compatible:
        payload.write_text(f'compatible = ["other"]\n{payload.read_text()}')
    service = start(payload)
    found = wait_for(payload.parent / "health.json", lambda found: found.state == "READY")
    service.terminate()
    assert service.wait(10) == 0
    assert (found.serial, found.events.get("trial_refused", 0)) == ((9, 0) if compatible else (good.manifest.serial, 1))


@pytest.mark.fault(45)
def test_when_current_is_missing_the_service_uses_previous_and_reports_it(payload: Path) -> None:
    slots, good = followed(payload)
    shutil.rmtree(slots.root / str(slots.target(CURRENT)))
    service = start(payload)
    found = wait_for(payload.parent / "health.json", lambda found: found.state == "DEGRADED" and found.up_s > 2)
    service.terminate()
    assert service.wait(10) == 0
    assert (found.serial, found.on_trial) == (good.manifest.serial, False)
    assert "the current bundle is refused; the previous one is used" in found.why


@pytest.mark.fault(29)
def test_a_refused_first_bundle_is_reported_at_every_start(payload: Path) -> None:
    """Later starts must not report that nothing is installed."""
    model = Slots(payload.parent / "root").root / TRIAL / "model.onnx"
    model.write_bytes(b"\0" + model.read_bytes()[1:])
    for _ in range(2):
        done = subprocess.run([*COMMAND, "serve", "--config", str(payload)], capture_output=True, text=True, check=False)
        assert done.returncode == 78
        assert "model.onnx" in done.stderr


@pytest.mark.fault(44)
@pytest.mark.parametrize("rotten", [False, True])
def test_after_a_crash_loop_the_last_good_bundle_runs_in_safe_mode(payload: Path, rotten: bool) -> None:
    folder = payload.parent
    slots, good = followed(payload)
    assert slots.target(PREVIOUS) is not None
    if rotten:
        (slots.root / PREVIOUS / "model.onnx").write_bytes(b"")
    for _ in range(MAX_STARTS):
        count_start(folder / "root")
    service = start(payload)
    found = wait_for(folder / "health.json", lambda found: found.state == "SAFE")
    service.terminate()
    assert service.wait(10) == 0
    assert found.serial == (5 if rotten else good.manifest.serial)
    assert (found.events["safe_mode"], found.events.get("bundle_refused", 0)) == (1, int(rotten))


@pytest.mark.fault(76)
@pytest.mark.parametrize("fault", ["damaged list", "writable store"])
def test_a_fault_of_the_trust_store_is_not_held_against_the_trial(payload: Path, fault: str) -> None:
    """The trial waits with all its tries while the proved bundle flies; with the store mended, it is tried."""
    folder, store = payload.parent, payload.parent / "trust"
    slots, good, files = flown(payload)
    public, _ = write_key_pair(folder / "keys", "daily")
    store.mkdir()
    shutil.copy(public, store)
    text = payload.read_text().replace("mark_good_s = 2.5", "mark_good_s = 600")
    payload.write_text(f'trust = "{store}"\n{text}')
    later = msgspec.structs.replace(good.manifest, serial=5)
    slots.install(write_bundle(folder / "next.snb", later, files).path, ANY)
    if fault == "damaged list":
        (store / "revoked.json").write_bytes(b'{"list":')
    else:
        store.chmod(0o777)
    for _ in range(2):
        service = start(payload)
        found = wait_for(folder / "health.json", lambda found, pid=service.pid: found.pid == pid and found.up_s > 1)
        service.terminate()
        assert service.wait(10) == 0
        assert (found.serial, found.on_trial) == (good.manifest.serial, False)
        assert "a bundle on trial waits: the trust store has a fault" in found.why
        assert found.events["trial_waits"] == 1
        assert slots.target(TRIAL) is not None
        assert slots.state.tries == 0
    (store / "revoked.json").unlink(missing_ok=True)
    store.chmod(0o755)
    service = start(payload)
    found = wait_for(folder / "health.json", lambda found: found.pid == service.pid and found.state == "READY")
    service.terminate()
    assert service.wait(10) == 0
    assert (found.serial, found.on_trial) == (5, True)


@pytest.mark.fault(76)
def test_a_held_trial_that_is_alone_is_named_with_the_fault_and_keeps_its_tries(tmp_path: Path, tiny_path: Path) -> None:
    slots = Slots(tmp_path / "root")
    slots.install(tiny_path, ANY)
    with pytest.raises(BundleError, match=r"cannot be judged: revoked\.json is damaged; nothing else is installed"):
        slots.choose(hold="revoked.json is damaged")
    assert slots.state.tries == 0
    assert slots.choose() == (slots.root / str(slots.target(TRIAL)), True)


def test_the_heads_of_a_camera_are_logged_and_a_bundle_without_them_is_refused(payload: Path) -> None:
    folder = payload.parent
    plain = payload.read_text()
    payload.write_text(plain.replace("smooth_s", 'heads = ["level"]\nsmooth_s'))
    service = start(payload)
    wait_for(folder / "health.json", lambda found: found.state == "READY")
    service.terminate()
    assert service.wait(10) == 0
    logged = [json.loads(record) for reading in read_journal(folder / "results") for record in reading.records]
    assert {tuple(each["predictions"]) for each in logged} == {("level",)}
    payload.write_text(plain.replace("smooth_s", 'heads = ["depth"]\nsmooth_s'))
    refused = subprocess.run([*COMMAND, "serve", "--config", str(payload)], capture_output=True, text=True, check=False)
    assert refused.returncode == 78
    assert "no head 'depth'; this model has shade, bands, level; camera synthetic:" in " ".join(refused.stderr.split())


def test_a_service_shows_the_heads_that_run_shows() -> None:
    spec = open_bundle("builtin:spatialnet-s").spec
    shown = {
        heads: stream_options(SourceSection(uri="0", heads=heads), 1, spec).show for heads in ((), ("all",), ("land_use_aid",))
    }
    assert shown == {(): ("land_use", "objects", "settlement"), ("all",): (), ("land_use_aid",): ("land_use_aid",)}
