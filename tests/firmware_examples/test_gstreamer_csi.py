"""A GStreamer camera through the engine to a real RTSP client, where the system has GStreamer and its RTSP server."""

import subprocess
import sys
from collections.abc import Iterator

import cv2
import pytest

from conftest import ROOT

PROGRAM = ROOT / "firmware_examples" / "gstreamer_csi" / "gstreamer_csi.py"
CAMERA = "gst:videotestsrc is-live=true pattern=snow num-buffers=600 ! video/x-raw,width=640,height=360,framerate=30/1"


def find_python() -> str:
    """A Python that can import the system's GStreamer: this one, or this one with Debian's modules."""
    check = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("GStreamer's RTSP server is not visible to this Python")
    return sys.executable


@pytest.fixture
def stream() -> Iterator[str]:
    command = [find_python(), str(PROGRAM), "builtin:student", CAMERA, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def test_a_viewer_sees_the_frames_with_the_answers(stream: str) -> None:
    assert stream.startswith("rtsp://127.0.0.1:")
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 10_000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 10_000]
    capture = cv2.VideoCapture(stream, cv2.CAP_FFMPEG, limits)
    images = [image for arrived, image in (capture.read() for _ in range(10)) if arrived]
    capture.release()
    assert len(images) >= 5
    last = images[-1]
    assert last.shape == (360, 640, 3)
    panel, picture = last[5:100, 5:200], last[200:, 300:]
    assert panel.mean() < 0.8 * picture.mean()  # the panel darkens its background
