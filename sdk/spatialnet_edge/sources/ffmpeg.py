"""FFmpeg's containers and decoders through PyAV: allowed formats, limits, and packet-by-packet decoding."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, final

import av
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from spatialnet_edge.core.errors import SourceRefused, first_line
from spatialnet_edge.sources.container_end import is_cut_off
from spatialnet_edge.sources.source_options import HARDWARE_VARIABLE

FORMATS = (
    "3g2,3gp,asf,av1,avi,flv,h264,hevc,ivf,jpeg_pipe,m4a,m4v,matroska,mj2,mjpeg,mov,mp4,mpeg,mpegts,mpjpeg,mpegvideo,mxf,nut,obu,ogg,rm,"
    "swf,vc1,webm,wtv,y4m,yuv4mpegpipe"
)
"""Demuxers for files. Playlists (HLS, DASH, ffconcat, SDP) are excluded, because they refer to other files and addresses."""
PROTOCOLS = "rtsp,rtsps,rtp,srtp,udp,tcp,tls,http,https,httpproxy,crypto,srt"
"""Protocols for streams. `file` is excluded: a server must not make us read local files."""
MAX_PIXELS = 8192 * 4352
"""Limit of pixels; larger pictures are not decoded: 8K is 7680×4320."""
STREAM_TIMEOUT_S = 10.0
HARDWARE = ("cuda", "vaapi", "videotoolbox")
"""Hardware decoders to try, in this order, if FFmpeg was built with them."""


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A packet that the decoder refused, or a picture that it marked as damaged."""

    reason: str


def open_file(path: Path) -> InputContainer:
    """Open a recording by its descriptor. FFmpeg never sees the name, so the name may contain any byte, `:` or `%03d`.

    Raises:
        SourceRefused: not a video in one of `FORMATS`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return open_container(f"/proc/self/fd/{descriptor}", {"format_whitelist": FORMATS, "protocol_whitelist": "file"}, None)
    finally:
        os.close(descriptor)  # FFmpeg has its own descriptor now


def open_stream(uri: str) -> InputContainer:
    """Open a network stream. It must respond within `STREAM_TIMEOUT_S`, at opening and at every read."""
    options = {"protocol_whitelist": PROTOCOLS, "rtsp_transport": "tcp"}
    return open_container(uri, options, (STREAM_TIMEOUT_S, STREAM_TIMEOUT_S))


def open_container(name: str, options: dict[str, str], timeout: tuple[float, float] | None) -> InputContainer:
    given = {**options, "max_pixels": str(MAX_PIXELS)}
    for device in hardware():
        with suppress(FFmpegError, NotImplementedError, RuntimeError):  # not available for this computer or codec
            return av.open(name, "r", options=given, timeout=timeout, hwaccel=HWAccel(device))
    return av.open(name, "r", options=given, timeout=timeout)


def hardware() -> list[str]:
    """Hardware decoders of FFmpeg whose driver is on this computer, best first."""
    if os.environ.get(HARDWARE_VARIABLE) == "software":
        return []
    built_in = set(hwdevices_available())
    return [name for name in HARDWARE if name in built_in and DRIVERS[name]()]


def version_of_ffmpeg() -> str:
    return f"FFmpeg {av.ffmpeg_version_info} through PyAV {av.__version__}"


def _any_path(*paths: str) -> bool:
    return any(Path(path).exists() for path in paths)


DRIVERS = {
    "cuda": lambda: _any_path("/dev/nvidia0"),
    "vaapi": lambda: _any_path("/dev/dri/renderD128"),
    "videotoolbox": lambda: False,
}


@final
class Decoder:
    """The first video stream of a container, decoded packet by packet.

    Args:
        low_delay: one thread per picture, so that a picture is available as soon as its packet is read; for live streams.
            Otherwise several pictures are decoded in parallel.
        path: of a recording; None for a stream.

    Raises:
        SourceRefused: the container has no video, or FFmpeg does not support its codec.
    """

    def __init__(self, container: InputContainer, low_delay: bool, path: Path | None = None) -> None:
        self._container = container
        self._path = path
        if not container.streams.video:
            raise SourceRefused("it has no video stream")
        self.stream: VideoStream = container.streams.video[0]
        context: Any = self.stream.codec_context
        if context is None:
            raise SourceRefused("FFmpeg does not support its video codec")
        context.options = {"max_pixels": str(MAX_PIXELS)}
        context.thread_type = "SLICE" if low_delay else "AUTO"
        self._packets = container.demux(self.stream)
        self._missing = 0  # packets that have given neither a picture nor a failure yet
        self.closed = False
        self._lock = Lock()

    @property
    def start_s(self) -> float:
        """The container's time at its beginning, in seconds."""
        start: Any = self._container.start_time
        return 0.0 if start is None else start / av.time_base

    def is_cut_off(self, path: Path) -> bool:
        """Whether the file at `path`, which was opened as this container, is truncated."""
        return is_cut_off(path, self._container, self.stream)

    def pictures(self) -> Iterator[av.VideoFrame | Undecodable]:
        """Every picture in order of presentation, and an `Undecodable` at the position of each failure.

        If one of the last packets fails, FFmpeg loses other pictures that it decodes in parallel. Then the end of a recording is
        decoded again.

        Raises:
            FFmpegError: reading the container failed.
        """
        last: int | None = None
        failed = False
        while (step := self._step()) is not None:
            self._missing -= len(step)
            for item in step:
                if isinstance(item, Undecodable):
                    failed = True
                else:
                    last = item.pts
                yield item
        missing = 0 if self.closed else self._missing
        if missing and last is not None and self._path is not None:
            for item in pictures_after(self._path, last):
                if isinstance(item, Undecodable):
                    failed = True
                else:
                    missing -= 1
                    yield item
        for _ in range(missing if failed else 0):  # without a failure, these packets have no picture of their own
            yield Undecodable("it, or a packet that it follows, could not be decoded")

    def _step(self) -> list[av.VideoFrame | Undecodable] | None:
        """The pictures of the next packet; None at the end, or after closing."""
        with self._lock:
            packet = None if self.closed else next(self._packets, None)
            if packet is None:
                return None
            if not packet.is_corrupt:
                return self._decoded(packet)
            following = next(self._packets, None)
            if following is not None and following.size > 0:
                return self._decoded(packet) + self._decoded(following)
            # The file is truncated inside this last packet. With several threads, FFmpeg would drop the pictures before it, too.
            self._missing += 1
            return [*(self._decoded(following) if following is not None else ()), Undecodable("its packet is incomplete")]

    def _decoded(self, packet: av.Packet[VideoStream]) -> list[av.VideoFrame | Undecodable]:
        """The pictures that a packet completes; a packet without data completes the last ones."""
        self._missing += packet.size > 0 and not packet.is_discard
        try:
            return [picture_or_damage(picture) for picture in packet.decode()]
        except EOFError:
            return []
        except FFmpegError as error:
            return [Undecodable(words_of(error))]

    def close(self) -> None:
        """Close the container after the current read: FFmpeg must not be closed while it reads."""
        with self._lock:
            self.closed = True
            self._container.close()


def pictures_after(path: Path, time: int) -> Iterator[av.VideoFrame | Undecodable]:
    """Decode the end of a recording again, one picture after the other; nothing if the file cannot be read again.

    Args:
        time: presentation time stamp of the last picture before it, in the stream's time base.
    """
    with suppress(OSError, FFmpegError, SourceRefused), closing(open_file(path)) as container:
        decoder = Decoder(container, low_delay=True)
        container.seek(time, stream=decoder.stream)
        for item in decoder.pictures():
            if isinstance(item, Undecodable) or (item.pts is not None and item.pts > time):
                yield item


def words_of(error: Exception) -> str:
    """FFmpeg's error message without the internal file name."""
    return (error.strerror if isinstance(error, FFmpegError) else None) or first_line(error)


def picture_or_damage(picture: av.VideoFrame) -> av.VideoFrame | Undecodable:
    """Detect a picture that FFmpeg marks as damaged: its packet was incomplete, and part of it is made up."""
    return Undecodable("its packet is incomplete") if picture.is_corrupt else picture
