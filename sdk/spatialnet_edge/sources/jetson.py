"""A Jetson's hardware through GStreamer: the CSI camera, and the video decoder for RTSP streams.

Recordings are decoded by FFmpeg on every computer, because only FFmpeg's packets tell which frames are damaged or missing.
NVIDIA's elements have never run here: the pipelines are tested with GStreamer's own elements in their place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, final

from spatialnet_edge.core.errors import NotInstalled, SourceLost, SourceRefused
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.core.redaction import redacted
from spatialnet_edge.sources.gstreamer import GStreamerSource, load_gstreamer
from spatialnet_edge.sources.source_options import HARDWARE_VARIABLE, CsiMode, parse_csi

if TYPE_CHECKING:
    from spatialnet_edge.sources.video import StreamSource

CAMERA, DECODER, CONVERTER = "nvarguscamerasrc", "nvv4l2decoder", "nvvidconv"
RTSP = ("rtsp://", "rtsps://")


def has_elements(*names: str) -> bool:
    """Whether GStreamer is installed and has these elements."""
    gst = load_gstreamer()
    return gst is not None and all(gst.ElementFactory.find(name) is not None for name in names)


def decodes_streams() -> bool:
    """Whether RTSP streams are decoded in hardware: the elements are there, and the environment does not forbid it."""
    return os.environ.get(HARDWARE_VARIABLE) != "software" and has_elements(DECODER, CONVERTER)


def csi_camera(rest: str) -> GStreamerSource:
    """Open a CSI camera: `csi:SENSOR?size=1280x720&fps=30`.

    Raises:
        NotInstalled: GStreamer lacks NVIDIA's elements.
        SourceRefused: an invalid option, or GStreamer refuses the pipeline.
    """
    mode = parse_csi(rest)
    if not has_elements(CAMERA, CONVERTER):
        raise NotInstalled(
            f"csi: needs NVIDIA's GStreamer elements {CAMERA} and {CONVERTER}, which JetPack installs, and python3-gi; other "
            "cameras are /dev/videoN"
        )
    return GStreamerSource(csi_pipeline(mode), f"csi:{rest}")


def csi_pipeline(mode: CsiMode) -> str:
    """The sensor's frames at the requested size and rate, converted in hardware."""
    width, height = mode.size
    caps = f"video/x-raw(memory:NVMM),width={width},height={height},framerate={mode.fps}/1"
    return f"{CAMERA} sensor-id={mode.sensor} ! {caps} ! {converted()}"


def stream_pipeline(uri: str) -> str:
    """A network stream; GStreamer prefers the hardware decoder, by its rank."""
    quoted = uri.replace("\\", "\\\\").replace('"', '\\"')
    return f'uridecodebin uri="{quoted}" caps="video/x-raw(ANY)" expose-all-streams=false ! {converted()}'


def converted() -> str:
    """From the memory of NVIDIA's elements to the computer's."""
    return f"{CONVERTER} ! video/x-raw,format=BGRx ! videoconvert"


def network_stream(rest: str) -> HardwareStream | StreamSource:
    """A network stream: RTSP with the Jetson's decoder if it is there, anything else with FFmpeg."""
    if rest.startswith(RTSP) and decodes_streams():
        return HardwareStream(rest)
    return software_stream(rest)


def software_stream(rest: str) -> StreamSource:
    from spatialnet_edge.sources.video import StreamSource  # extra video; a CSI camera does without

    return StreamSource(rest)


@final
class HardwareStream:
    """An RTSP stream with the Jetson's decoder. If no frame comes out, FFmpeg decodes it.

    Raises:
        SourceLost: the stream was interrupted after its first frame, or FFmpeg lost it.
        SourceRefused: neither decoder opens it.
    """

    live = True
    length = None
    fps = None

    def __init__(self, rest: str) -> None:
        self.uri = redacted(rest)
        self._rest = rest
        self._source: GStreamerSource | StreamSource = GStreamerSource(stream_pipeline(rest), self.uri)

    def __iter__(self) -> Iterator[Frame | Skipped]:
        delivered = False
        try:
            for item in self._source:
                delivered = True
                yield item
        except (SourceLost, SourceRefused):
            if delivered:
                raise
        if delivered:
            raise SourceLost(f"{self.uri}: the stream ended; the results so far are kept")
        self._source.close()
        self._source = software_stream(self._rest)
        yield from self._source

    def close(self) -> None:
        self._source.close()
