"""The C client with the real sink: compiled with warnings as errors, and compared with Python's decoding."""

import ctypes
import math
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT, TINY, clip_frames
from spatialnet_edge.api import load
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.core.errors import SinkError
from spatialnet_edge.core.frames import Frame, Pose
from spatialnet_edge.core.predictions import Classification
from spatialnet_edge.core.results import REASONS, FrameResult, assemble
from spatialnet_edge.sinks.record_codec import pack, unpack
from spatialnet_edge.sinks.registry import open_sink

FOLDER = ROOT / "firmware_examples" / "c_client"
BUNDLE = "00112233445566ff"
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-O2"]


def result(seq: int, pose: Pose | None = None, flags: tuple[str, ...] = ()) -> FrameResult:
    rows = {
        "shade": np.array([0.25, 0.75], np.float32) if seq % 2 else np.array([0.5, 0.5], np.float32),
        "bands": np.array([0.9, 0.1, 0.6], np.float32),
        "level": np.array([seq], np.float32),
    }
    frame = Frame(np.zeros((4, 4, 3), np.uint8), seq, "tests", pose=pose)
    return assemble(TINY, frame, rows, 1.0, flags, bundle=BUNDLE)


@pytest.mark.fault(55)
def test_every_record_and_object_has_the_bundles_hash() -> None:
    with load("builtin:student") as model:
        short = open_bundle("builtin:student").short_hash
        answered = model(clip_frames(1)[0])
        (streamed,) = model.stream("synthetic:frames=1")
    assert len(short) == 16
    assert answered.bundle == streamed.bundle == short
    assert answered.to_dict()["bundle"] == short
    assert unpack(pack(answered)).bundle == short
    assert result(1).to_dict()["bundle"] == BUNDLE
    assert unpack(pack(replace(answered, bundle=None))).bundle is None


def test_a_record_says_why_there_is_no_label() -> None:
    assert (unpack(pack(result(7))).reason, unpack(pack(result(7))).known) == (None, None)
    for reason in REASONS:
        found = unpack(pack(replace(result(7), reason=reason, known=0.25)))
        assert found.reason == reason
        assert found.known == pytest.approx(0.25, abs=0.002)
    assert unpack(pack(result(7, flags=("dark",)))).reason == "dark"


def test_a_label_that_does_not_fit_a_record_is_refused() -> None:
    labels = tuple(map(str, range(40_000)))
    answer = Classification("39999", 0.9, labels, np.zeros(1, np.float32))
    with pytest.raises(SinkError, match="does not fit a record"):
        pack(replace(result(1), predictions={"many": answer}, heads=("many",)))


def test_a_record_round_trips() -> None:
    found = unpack(pack(result(7, Pose(-33.8583, 151.21, 120.5))))
    assert found.seq == 7
    assert found.position == (-33.8583, 151.21, 120.5)
    assert found.flags == 8
    assert found.bundle == BUNDLE
    shade, bands, level = found.answers
    assert (shade.head, shade.kind, shade.label, shade.value) == (0, 0, 1, 0.75)
    assert (bands.kind, bands.present) == (1, (0, 2))
    assert (level.kind, level.value) == (2, 7.0)
    assert unpack(pack(result(2))).answers[0].label == -1  # unsure
    assert unpack(pack(result(2))).position is None


def test_a_frame_without_a_label_has_none_in_its_record() -> None:
    found = unpack(pack(result(7, flags=("dark",))))
    assert found.flags == 1
    shade, bands, level = found.answers
    assert (shade.label, bands.present, math.isnan(level.value)) == (-1, (), True)


@given(st.builds(Pose, *[st.floats()] * 3))
def test_any_pose_gives_a_record(pose: Pose) -> None:
    """A satellite exceeds the altitude field, and a receiver without a fix reports NaN."""
    found = unpack(pack(result(1, pose))).position
    assert (found is None) == (not all(map(math.isfinite, (pose.latitude, pose.longitude, pose.altitude))))
    assert found is None or found[2] == pytest.approx(min(max(pose.altitude, -(2**31 - 1) / 1e3), (2**31 - 1) / 1e3), abs=1e-3)


@given(st.integers(0, 115), st.integers(1, 255))
def test_every_changed_byte_is_detected(place: int, change: int) -> None:
    content = bytearray(pack(result(1)))
    assert len(content) == 116
    content[place] ^= change
    with pytest.raises(ValueError, match=r".+"):
        unpack(bytes(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("c")
    subprocess.run(["cc", *STRICT, "-o", folder / "client", FOLDER / "client.c"], check=True)
    (folder / "reader.c").write_text(
        '#include "spatialnet_record.h"\n'
        "int read_it(const uint8_t *from, size_t length, struct spatialnet_record *record);\n"
        "int read_it(const uint8_t *from, size_t length, struct spatialnet_record *record)\n"
        "{ return spatialnet_read(from, length, record); }\n"
    )
    command = ["cc", *STRICT, "-shared", "-fPIC", f"-I{FOLDER}", "-o", folder / "reader.so", folder / "reader.c"]
    subprocess.run(command, check=True)
    return folder


def test_the_client_prints_what_the_runtime_sent(folder: Path, tmp_path: Path) -> None:
    sink = open_sink(f"unix:{tmp_path / 'results.sock'}")
    client = subprocess.Popen([folder / "client", tmp_path / "results.sock"], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 5
    while not sink._clients and time.monotonic() < deadline:  # type: ignore[attr-defined]
        sink.flush()  # type: ignore[attr-defined]
        time.sleep(0.01)
    for seq in range(20):
        sink.write(result(seq))
    sink.close()
    printed, _ = client.communicate(timeout=10)
    assert client.returncode == 0
    lines = printed.splitlines()
    assert len(lines) == 20
    for seq, line in enumerate(lines):
        words = line.split()
        assert words[0] == str(seq)
        assert words[3] == f"bundle={BUNDLE}"
        assert words[4] == ("0:0:1:0.750000:0" if seq % 2 else "0:0:-1:0.500000:0")
        assert words[5] == "1:1:-1:0.900000:5"
        assert words[6] == f"2:2:-1:{seq:.6f}:0"


def test_c_refuses_what_python_refuses(folder: Path) -> None:
    read = ctypes.CDLL(str(folder / "reader.so")).read_it
    space = ctypes.create_string_buffer(4096)
    good = pack(result(3))
    cases = {
        0: good,
        -1: b"SNEX" + good[4:],
        -2: good[:4] + b"\x01" + good[5:],
        -3: good[:-1],
        -4: good[:70] + bytes([good[70] ^ 1]) + good[71:],
    }
    for status, content in cases.items():
        assert read(content, ctypes.c_size_t(len(content)), space) == status
    assert read(b"", ctypes.c_size_t(0), space) == -1


def test_a_missing_or_slow_reader_delays_nothing(tmp_path: Path) -> None:
    import socket

    sink = open_sink(f"unix:{tmp_path / 'results.sock'}")
    sink.write(result(0))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as slow:
        slow.connect(str(tmp_path / "results.sock"))
        started = time.monotonic()
        for seq in range(5000):
            sink.write(result(seq))
        assert time.monotonic() - started < 5
        assert sink.missed > 0  # type: ignore[attr-defined]
        assert unpack(slow.recv(4096)).seq == 0
    sink.write(result(1))  # the reader has disconnected
    sink.close()
    assert not (tmp_path / "results.sock").exists()
