"""A GStreamer pipeline, such as a Jetson's CSI camera.

`gst:videotestsrc num-buffers=90 ! video/x-raw,width=640,height=480` needs no sink: conversion to BGR and an `appsink` are
added. The system's GStreamer (PyGObject) is used if it is installed; otherwise OpenCV, if it was built with GStreamer.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, final

import numpy as np

from spatialnet_edge.core.errors import NotInstalled, SourceLost, SourceRefused
from spatialnet_edge.core.frames import Frame, Skipped

SINK = "videoconvert ! video/x-raw,format=BGR ! appsink name=frames sync=false max-buffers=2 drop=false"
NEEDED = (
    "gst: needs GStreamer: install python3-gi, gir1.2-gst-plugins-base-1.0 and gstreamer1.0-plugins-base from your system and "
    "make them visible here (a virtual environment made with --system-site-packages)"
)
PULL_TIMEOUT_NS = 10_000_000_000


@final
class GStreamerSource:
    """Frames of a pipeline until its end of stream.

    Args:
        uri: display name; None: `gst:` and the pipeline.
    """

    live = True
    length = None
    fps = None

    def __init__(self, rest: str, uri: str | None = None) -> None:
        self.uri = f"gst:{rest}" if uri is None else uri
        description = f"{parse_pipeline(rest)} ! {SINK}"
        gst = load_gstreamer()
        self._reader: _OpenCvReader | _GstReader
        if gst is not None:
            self._reader = _GstReader(gst, description, self.uri)
        elif opencv_has_gstreamer():
            self._reader = _OpenCvReader(description, self.uri)
        else:
            raise NotInstalled(NEEDED)

    def __iter__(self) -> Iterator[Frame | Skipped]:
        yield from self._reader.frames()

    def close(self) -> None:
        self._reader.close()


def parse_pipeline(rest: str) -> str:
    """Check that there is a pipeline, and a GStreamer to run it. Nothing is started.

    Returns:
        The pipeline.

    Raises:
        SourceRefused: it is empty.
        NotInstalled: GStreamer is neither in PyGObject nor in OpenCV.
    """
    if not rest.strip():
        raise SourceRefused("gst: needs a pipeline; example: gst:videotestsrc num-buffers=90")
    if not (pygobject_has_gstreamer() or opencv_has_gstreamer()):
        raise NotInstalled(NEEDED)
    return rest


def pygobject_has_gstreamer() -> bool:
    """Whether PyGObject and the description of GStreamer's interface are installed; GStreamer itself is not initialised."""
    try:
        gi: Any = import_module("gi")
        gi.require_version("Gst", "1.0")
    except (ImportError, ValueError):
        return False
    return True


def load_gstreamer() -> Any | None:
    """The `Gst` namespace, initialised; None if PyGObject or GStreamer is not installed."""
    try:
        gi: Any = import_module("gi")
        gi.require_version("Gst", "1.0")
        gst: Any = import_module("gi.repository.Gst")
    except (ImportError, ValueError):
        return None
    gst.init(None)
    return gst


def opencv_has_gstreamer() -> bool:
    try:
        import cv2
    except ModuleNotFoundError:
        return False
    lines = cv2.getBuildInformation().splitlines()
    return any("GStreamer:" in line and "YES" in line for line in lines)


class _OpenCvReader:
    def __init__(self, description: str, uri: str) -> None:
        import cv2

        self._uri = uri
        self._capture = cv2.VideoCapture(description, cv2.CAP_GSTREAMER)
        if not self._capture.isOpened():
            raise SourceRefused(f"{uri}: OpenCV's GStreamer cannot start this pipeline; try it with gst-launch-1.0")

    def frames(self) -> Iterator[Frame | Skipped]:
        from spatialnet_edge.sources.opencv_frames import read_frames

        return read_frames(self._capture, self._uri)

    def close(self) -> None:
        self._capture.release()


class _GstReader:
    def __init__(self, gst: Any, description: str, uri: str) -> None:
        self._gst = gst
        self._uri = uri
        try:
            self._pipeline = gst.parse_launch(description)
        except Exception as error:  # GLib.Error, a class that exists only after PyGObject is imported
            raise SourceRefused(f"{uri}: GStreamer cannot run this pipeline: {error}") from error
        self._sink = self._pipeline.get_by_name("frames")
        self._pipeline.set_state(gst.State.PLAYING)

    def frames(self) -> Iterator[Frame | Skipped]:
        seq = 0
        while True:
            sample = self._sink.emit("try-pull-sample", PULL_TIMEOUT_NS)
            if sample is None:
                self._check_end(seq)
                return
            shape = sample.get_caps().get_structure(0)
            height, width = shape.get_value("height"), shape.get_value("width")
            buffer = sample.get_buffer()
            raw = np.frombuffer(buffer.extract_dup(0, buffer.get_size()), np.uint8)
            stride = len(raw) // height  # rows are padded to four bytes
            image = np.lib.stride_tricks.as_strided(raw, (height, width, 3), (stride, 3, 1))
            yield Frame(image, seq, self._uri, pixel_format="bgr24")
            seq += 1

    def _check_end(self, seq: int) -> None:
        message = self._pipeline.get_bus().pop_filtered(self._gst.MessageType.ERROR)
        if message is not None:
            error, _ = message.parse_error()
            kind = SourceRefused if seq == 0 else SourceLost
            raise kind(f"{self._uri}: {error.message} (after {seq} frames)")
        if not self._sink.get_property("eos"):
            raise SourceLost(f"{self._uri}: no frame for {PULL_TIMEOUT_NS // 10**9} s (after {seq} frames)")

    def close(self) -> None:
        self._pipeline.set_state(self._gst.State.NULL)
