"""A Jetson's camera and decoder, with GStreamer's own elements in place of NVIDIA's."""

from __future__ import annotations

import pytest

from conftest import CLIP
from spatialnet_edge.cli.doctor import jetson_elements
from spatialnet_edge.core.errors import NotInstalled, SourceLost, SourceRefused
from spatialnet_edge.core.frames import Frame
from spatialnet_edge.sources import jetson
from spatialnet_edge.sources.gstreamer import GStreamerSource, load_gstreamer
from spatialnet_edge.sources.registry import check_source, open_source
from spatialnet_edge.sources.source_options import CsiMode, parse_csi
from spatialnet_edge.sources.video import StreamSource

needs_gstreamer = pytest.mark.skipif(load_gstreamer() is None, reason="needs GStreamer with PyGObject (make test-peers)")


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    """This computer's elements under the names that the runtime looks for."""
    monkeypatch.setattr(jetson, "DECODER", "decodebin")
    monkeypatch.setattr(jetson, "CONVERTER", "videoconvert")
    monkeypatch.setattr(jetson, "RTSP", ("rtsp://", "file://"))
    monkeypatch.delenv(jetson.HARDWARE_VARIABLE, raising=False)


def test_the_options_of_a_csi_camera() -> None:
    assert parse_csi("1?size=1920x1080&fps=60") == CsiMode(1, (1920, 1080), 60)
    assert parse_csi("0") == CsiMode(0, (1280, 720), 30)
    for wrong in ("", "x", "0?size=7", "0?fps=0", "0?gain=3", "-1"):
        with pytest.raises(SourceRefused, match="csi:"):
            check_source(f"csi:{wrong}")


@pytest.mark.skipif(jetson.has_elements(jetson.CAMERA), reason="this computer is a Jetson")
def test_another_computer_has_no_csi_camera_and_decodes_in_software() -> None:
    with pytest.raises(NotInstalled, match="nvarguscamerasrc"):
        open_source("csi:0")
    assert not jetson.decodes_streams()
    assert jetson_elements() == ""
    with pytest.raises(SourceRefused, match="no stream"):
        open_source("rtsp://127.0.0.1:1/x")


@needs_gstreamer
def test_the_camera_s_pipeline_runs_with_a_test_picture() -> None:
    pipeline = jetson.csi_pipeline(CsiMode(0, (320, 240), 30))
    for theirs, ours in (
        ("nvarguscamerasrc sensor-id=0", "videotestsrc num-buffers=3"),
        ("(memory:NVMM)", ""),
        ("nvvidconv", "videoconvert"),
    ):
        assert theirs in pipeline
        pipeline = pipeline.replace(theirs, ours)
    source = GStreamerSource(pipeline, "csi:0")
    frames = [item for item in source if isinstance(item, Frame)]
    source.close()  # GStreamer crashes if a running pipeline is only forgotten
    assert [frame.pixels.shape for frame in frames] == [(240, 320, 3)] * 3
    assert frames[0].source == "csi:0"


@needs_gstreamer
def test_a_stream_is_decoded_by_gstreamer_where_the_elements_are(played: None, monkeypatch: pytest.MonkeyPatch) -> None:
    source = jetson.network_stream(CLIP.as_uri())
    frames: list[Frame] = []
    with pytest.raises(SourceLost, match="the stream ended"):
        frames.extend(item for item in source if isinstance(item, Frame))
    source.close()
    assert len(frames) == 242
    assert isinstance(source, jetson.HardwareStream)
    assert "rtsp: decoded by decodebin" in jetson_elements()
    monkeypatch.setenv(jetson.HARDWARE_VARIABLE, "software")
    assert not jetson.decodes_streams()


@needs_gstreamer
def test_a_stream_without_a_frame_goes_to_ffmpeg(played: None, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def software(rest: str) -> StreamSource:
        opened.append(rest)
        raise SourceRefused("FFmpeg was asked")

    monkeypatch.setattr(jetson, "software_stream", software)
    source = jetson.network_stream("file:///nowhere.mp4")
    with pytest.raises(SourceRefused, match="FFmpeg was asked"):
        list(source)
    source.close()
    assert opened == ["file:///nowhere.mp4"]


@needs_gstreamer
def test_a_password_is_not_shown(played: None) -> None:
    source = jetson.network_stream("rtsp://pilot:S3cret@127.0.0.1:1/x")
    source.close()
    assert "S3cret" not in source.uri
