"""A typo in the configuration is refused with status 78 before anything else, and never counts against a bundle on trial."""

import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service_fixtures import COMMAND
from spatialnet_edge.bundle.keys import write_key_pair
from spatialnet_edge.bundle.slots import TRIAL, Slots
from spatialnet_edge.cli.app import app
from spatialnet_edge.core import plugins
from spatialnet_edge.core.errors import ConfigRefused, NotInstalled, SourceRefused
from spatialnet_edge.runtime.inputs import open_input
from spatialnet_edge.runtime.options import StreamOptions
from spatialnet_edge.service.config import load_service_config
from spatialnet_edge.sources import gstreamer
from spatialnet_edge.sources.supervised import ignore_event

WHOLE = """
root = "/nowhere/root"
sinks = ["log:/nowhere/{camera}", "mqtt://broker/fleet/{camera}"]
[cameras]
front = "rtsp://pilot:S3cr3tPW@camera/1"
[cameras.down]
uri = "0"
smooth_s = 0.5
sinks = ["null:"]
[[sources]]
uri = "synthetic:frames=10"
sinks = ["jsonl:/nowhere/out.jsonl"]
[engine]
threads = 2
[health]
hang_s = 5
[limits]
hot_c = 80
cool_c = 70
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "payload.toml"
    path.write_text(text)
    return path


def test_cameras_have_names_and_share_sinks(tmp_path: Path) -> None:
    config = load_service_config(written(tmp_path, WHOLE))
    assert [section.shown for section in config.sources] == ["synthetic:frames=10", "front", "down"]
    assert config.sources[0].sinks == ("jsonl:/nowhere/out.jsonl",)
    assert config.sources[1].sinks == ("log:/nowhere/front", "mqtt://broker/fleet/front")
    assert config.sources[2].sinks == ("null:",)
    assert config.sources[2].smooth_s == 0.5


@pytest.mark.fault(48)
@pytest.mark.parametrize(
    ("found", "wrong", "says"),
    [
        ("hang_s = 5", "hnag_s = 5", r"\[health\] unknown key 'hnag_s'; did you mean 'hang_s'"),
        ("threads = 2", "bakend = 'tensorrt'", r"\[engine\] unknown key 'bakend'; did you mean 'backend'"),
        ("threads = 2", "backend = 'hailo'", "no backend 'hailo'; available: onnxruntime"),
        ("smooth_s = 0.5", "smoth_s = 0.5", "source 3: unknown key 'smoth_s'; did you mean 'smooth_s'"),
        ("[limits]", "[limts]", "unknown key 'limts'; did you mean 'limits'"),
        ("[[sources]]", "[[source]]", "unknown key 'source'; did you mean 'sources'"),
        ("hang_s = 5", "hang_s = nan", "hang_s"),
        ("hang_s = 5", "hang_s = inf", "hang_s"),
        ("hang_s = 5", "golden_s = nan", "golden_s"),
        ("hang_s = 5", "golden_s = 1e-320", "golden_s"),
        ("hang_s = 5", "mark_good_s = inf", "mark_good_s"),
        ("hang_s = 5", "scrub_s = nan", "scrub_s"),
        ("hot_c = 80", "hot_c = nan", "hot_c = nan: expected a finite number"),
        ("smooth_s = 0.5", "policy = 'lastest'", "no frame policy 'lastest'"),
        ("smooth_s = 0.5", "pose = 'mavlnk:udpin:127.0.0.1:14999'", "no pose 'mavlnk:"),
        ("smooth_s = 0.5", "pose = 'mavlink:udpin:14999'", "no pose 'mavlink:"),
        ("smooth_s = 0.5", "pose = 'mavlink:/dev/ttyS0?system=300'", "expected a whole number from 1 to 255"),
        ('uri = "0"', 'uri = "rtps://camera"', "no source 'rtps:'"),
        ('"null:"', '"lgo:/x"', "no sink 'lgo:/x'"),
        ('"null:"', '"log:/x?totl_mb=1"', "no option 'totl_mb'"),
        ('"null:"', '"log:/x?total_mb=nan"', "total_mb=nan"),
        ('"null:"', '"mavlink:udpout:127.0.0.1:9?system=300"', "expected a whole number from 1 to 255"),
        ('"null:"', '"mavlink:udpout:9"', "no connection 'udpout:9'"),
        ('"null:"', '"udp://127.0.0.1:9?budget=inf"', "must not be negative, infinite or nan"),
        ('"null:"', '"mqtt://broker/fleet/+"', "no [+] or #"),
        ('"null:"', '"mqtt://broker/x?password_file=/nothing"', "password_file=/nothing: cannot be read"),
        ('"null:"', '"video:/x/out.mkv"', "written as .mp4 or .avi"),
        ('"null:"', '"log:/nowhere/./x/../front/"', "the sink's place '/nowhere/front' occurs 2 times"),
        ('"null:"', '"log:/nowhere/root/events"', "the sink's place '/nowhere/root/events' occurs 2 times"),
        ("synthetic:frames=10", "/dev/video0", "the source '/dev/video0' occurs 2 times"),
        ('[cameras]\nfront = "rtsp', 'name = "down"\n[cameras]\nfront = "rtsp', "unknown key 'name'"),
        ('sinks = ["jsonl:/nowhere/out.jsonl"]', "", "is for cameras with a name"),
        ('sinks = ["jsonl:/nowhere/out.jsonl"]', 'name = "down"', "the camera's name 'down' occurs 2 times"),
    ],
)
def test_a_typo_is_named_with_what_was_meant(tmp_path: Path, found: str, wrong: str, says: str) -> None:
    assert found in WHOLE
    path = written(tmp_path, WHOLE.replace(found, wrong))
    with pytest.raises(ConfigRefused, match=says):
        load_service_config(path)
    checked = CliRunner().invoke(app, ["serve", "--check", "--config", str(path)])
    assert isinstance(checked.exception, ConfigRefused)
    assert checked.exception.exit_status == 78


@pytest.mark.fault(50)
@pytest.mark.parametrize(
    "uri",
    [
        "mqtt://pilot:S3cr3tPW@broker/fleet",
        "mqtt://pilot:S3cr3t?PW@broker/fleet",
        "mqtt://broker/fleet?password=S3cr3tPW",
        "udp://pilot:S3cr3tPW@host:99999",
    ],
)
def test_no_error_message_has_a_password(tmp_path: Path, uri: str) -> None:
    with pytest.raises(ConfigRefused) as refused:
        load_service_config(written(tmp_path, WHOLE.replace('"null:"', f'"{uri}"')))
    assert "S3cr3t" not in str(refused.value)


@pytest.mark.fault(48)
@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ('"null:"', '"lgo:/x"'),
        ('"null:"', '"log:{folder}/payload.toml/x"'),
        ("{folder}/health.json", "{folder}/payload.toml/health.json"),
        ("smooth_s = 0.2", 'policy = "lastest"'),
        ("synthetic:frames=", "synthetic:frmes="),
    ],
)
def test_a_wrong_configuration_costs_a_trial_no_try(payload: Path, found: str, wrong: str) -> None:
    folder = payload.parent
    text = payload.read_text()
    payload.write_text(text.replace(found.format(folder=folder), wrong.format(folder=folder)))
    assert payload.read_text() != text
    slots = Slots(folder / "root")
    for _ in range(2):
        done = subprocess.run([*COMMAND, "serve", "--config", str(payload)], capture_output=True, timeout=60, check=False)
        assert done.returncode == 78, done.stderr
    assert slots.state.tries == 0
    assert slots.target(TRIAL) is not None


@pytest.mark.fault(48)
@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("synthetic:frames=ten", "example: synthetic:frames=300"),
        ("synthetic:fps=nan", "fps from 0 to 10000"),
        ("synthetic:seed=-1", "seed=-1"),
        ("faulty:ok*3,hnag", "no step 'hnag'"),
        ("faulty:ok*many", r"'ok\*many'"),
        ("/dev/video0?szie=640x480", "unknown option 'szie'"),
        ("/dev/video0?size=640", "example: 0"),
        ("/dev/video0?fps=nan", "must be positive"),
        ("/dev/video0?format=MJPEG", "at most four letters"),
        ("rtsp://camera:99999/1", "[Pp]ort"),
        ("rtsp://:554/1", "no host"),
        ("scene:/x.tif?tiel=256", "unknown option 'tiel'"),
        ("scene:/x.tif?scale=nan", "finite number"),
        ("scene:/x.tif?bands=0", "bands count from 1"),
        ("scene:?tile=256", "no raster"),
        ("gst: ", "needs a pipeline"),
    ],
)
def test_a_source_with_a_wrong_option_is_refused_before_it_is_opened(payload: Path, uri: str, says: str) -> None:
    """By `serve --check` and `run`; that it costs a trial no try is tested above with a running `serve`."""
    text = payload.read_text().replace("synthetic:frames=100000&size=64x48&fps=50", uri)
    assert uri in text
    payload.write_text(text)
    with pytest.raises(ConfigRefused, match=says):
        load_service_config(payload)
    with pytest.raises(SourceRefused, match=says):
        open_input(uri, StreamOptions(own_process=True), ignore_event)
    checked = CliRunner().invoke(app, ["serve", "--check", "--config", str(payload)])
    assert isinstance(checked.exception, ConfigRefused)


@pytest.mark.fault(48)
@pytest.mark.parametrize(
    ("found", "wrong", "library"),
    [
        ("", "", "av"),
        ("rtsp://pilot:S3cr3tPW@camera/1", "synthetic:frames=9", "cv2"),
        ('uri = "synthetic:frames=10"', 'uri = "scene:/x.tif"', "rasterio"),
        ("smooth_s = 0.5", "pose = 'mavlink:udpin:127.0.0.1:14999'", "pymavlink"),
        ("threads = 2", "backend = 'openvino'", "openvino"),
    ],
)
def test_a_library_that_is_missing_is_seen_by_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str, wrong: str, library: str
) -> None:
    """With the library hidden from the finder; without that, the same configuration is accepted where the library is here."""
    real = plugins.find_spec
    path = written(tmp_path, WHOLE.replace(found, wrong) if found else WHOLE)
    monkeypatch.setattr(plugins, "find_spec", lambda name: None if name == library else real(name) or object())
    with pytest.raises(ConfigRefused, match=f"the library '{library}' is not installed; install it with: pip install"):
        load_service_config(path)
    monkeypatch.setattr(plugins, "find_spec", lambda name: object())
    load_service_config(path)


@pytest.mark.fault(48)
def test_gst_without_gstreamer_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gstreamer, "pygobject_has_gstreamer", lambda: False)
    monkeypatch.setattr(gstreamer, "opencv_has_gstreamer", lambda: False)
    with pytest.raises(NotInstalled, match="python3-gi"):
        open_input("gst:videotestsrc", StreamOptions(), ignore_event)


@pytest.mark.fault(48)
def test_the_check_sees_a_trust_store_that_accepts_nothing(payload: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal() -> str:
        checked = CliRunner().invoke(app, ["serve", "--check", "--config", str(payload)])
        assert isinstance(checked.exception, ConfigRefused), checked.output
        return str(checked.exception)

    store = payload.parent / "trust"
    monkeypatch.setattr("spatialnet_edge.bundle.trust.SYSTEM_STORE", store)
    text = payload.read_text()
    payload.write_text(text.replace("allow_unsigned = true", ""))
    assert "no trusted keys" in refusal()
    payload.write_text(text.replace("allow_unsigned = true", f'trust = "{store}"'))
    assert "no public key" in refusal()
    public, _ = write_key_pair(payload.parent / "keys", "daily")
    store.mkdir()
    shutil.copy(public, store)
    assert CliRunner().invoke(app, ["serve", "--check", "--config", str(payload)]).exit_code == 0
    store.chmod(0o777)
    assert "other users may change the trusted keys" in refusal()
