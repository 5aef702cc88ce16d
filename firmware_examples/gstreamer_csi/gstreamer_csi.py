"""From a CSI camera through the engine to an RTSP stream with the predictions drawn on it.

python gstreamer_csi.py landuse.snb 'gst:nvarguscamerasrc ! … ! video/x-raw,format=BGRx'     (the whole line is in README.md)

Watch it with any player: rtsp://HOST:8554/overlay
"""

from __future__ import annotations

import threading
from typing import Annotated, Any

import gi
import numpy as np
import typer

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 (a version must be required first)

import spatialnet_edge  # noqa: E402
from spatialnet_edge.core.results import FrameResult  # noqa: E402
from spatialnet_edge.sinks.queued import QueuedSink  # noqa: E402
from spatialnet_edge.sinks.video import draw  # noqa: E402

JPEG = "jpegenc quality=70 ! rtpjpegpay name=pay0 pt=26"
"""Default encoder: works on every device without a hardware encoder; see README.md for a Jetson's."""


class RtspSink:
    """Serves the frames with the predictions drawn on them to all RTSP clients. Without a client, nothing is encoded.

    Args:
        port: of the server; 0: any free port.
        encoder: GStreamer elements from raw BGR to a payloader named `pay0`.
    """

    def __init__(self, port: int, encoder: str, fps: float = 30.0) -> None:
        self._encoder, self._fps = encoder, fps
        self._viewers: list[Any] = []
        self._lock = threading.Lock()
        self._size = (0, 0)
        self._server = GstRtspServer.RTSPServer()
        self._server.set_service(str(port))
        self._loop = GLib.MainLoop()
        self._thread = threading.Thread(target=self._loop.run, name="rtsp", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.get_bound_port())

    def write(self, result: FrameResult) -> None:
        image = draw(np.array(result.frame.pixels[..., ::-1]), result)  # a copy: the frame has other readers
        if not self._size[0]:
            self._open(image.shape[1], image.shape[0])
        if (image.shape[1], image.shape[0]) != self._size:
            return  # clients expect the stream's initial size
        buffer = Gst.Buffer.new_wrapped(image.tobytes())
        with self._lock:
            self._viewers = [each for each in self._viewers if each.emit("push-buffer", buffer) == Gst.FlowReturn.OK]

    def close(self) -> None:
        if self._loop.is_running():
            with self._lock:
                for viewer in self._viewers:
                    viewer.emit("end-of-stream")
            self._loop.quit()
            self._thread.join(2)

    def _open(self, width: int, height: int) -> None:
        self._size = (width, height)
        caps = f"video/x-raw,format=BGR,width={width},height={height},framerate={int(self._fps)}/1"
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(
            f"( appsrc name=frames is-live=true do-timestamp=true format=time block=false max-buffers=2 leaky-type=downstream "
            f"caps={caps} ! videoconvert ! video/x-raw,format=I420 ! {self._encoder} )"
        )
        factory.set_shared(True)
        factory.connect("media-configure", self._admit)
        self._server.get_mount_points().add_factory("/overlay", factory)
        self._server.attach(None)
        self._thread.start()
        typer.echo(f"rtsp://127.0.0.1:{self.port}/overlay")

    def _admit(self, factory: Any, media: Any) -> None:
        with self._lock:
            self._viewers.append(media.get_element().get_by_name("frames"))


def main(
    bundle: str,
    source: Annotated[str, typer.Argument(help="gst:PIPELINE, or any other source.")],
    port: Annotated[int, typer.Option(help="Port of the RTSP server; 0: any free port.")] = 8554,
    encoder: Annotated[str, typer.Option(help="GStreamer elements from raw BGR to a payloader named pay0.")] = JPEG,
) -> None:
    """Classify a camera and serve its frames with the predictions."""
    Gst.init(None)
    sink = QueuedSink(RtspSink(port, encoder), wait=False, name="rtsp")
    count = 0
    try:
        for _ in spatialnet_edge.stream(bundle, source, policy="latest", smoothing_s=0.3, sinks=[sink]):
            count += 1
    except KeyboardInterrupt:
        pass
    sink.close()
    typer.echo(f"{count} frames classified, {sink.dropped} not shown")


if __name__ == "__main__":
    typer.run(main)
