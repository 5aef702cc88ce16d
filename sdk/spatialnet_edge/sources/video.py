"""Recordings and network streams, demuxed and decoded by FFmpeg through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import av
from av.error import FFmpegError

from spatialnet_edge.core.errors import SourceLost, SourceRefused
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.core.redaction import redacted
from spatialnet_edge.sources.decoded_picture import OrientationReader
from spatialnet_edge.sources.ffmpeg import STREAM_TIMEOUT_S, Decoder, Undecodable, open_file, open_stream, words_of
from spatialnet_edge.sources.registry import first_bytes, regular_file, shown


@final
class VideoSource:
    """A recording, with every frame. A frame's time is its presentation time stamp.

    Attributes:
        length: from the container; an estimate, None if unknown.

    Raises:
        SourceRefused: missing, empty, or not a video that FFmpeg decodes.
    """

    live = False

    def __init__(self, rest: str) -> None:
        self.uri = shown(rest)
        self._path = regular_file(rest)
        try:
            self._decoder = Decoder(open_file(self._path), low_delay=False, path=self._path)
        except (FFmpegError, SourceRefused) as error:
            raise SourceRefused(
                f"{self.uri}: not a video that FFmpeg decodes ({words_of(error)}); it begins with {first_bytes(self._path)}"
            ) from error
        self._orientation = OrientationReader()
        stream = self._decoder.stream
        rate = stream.average_rate or stream.guessed_rate
        self.fps = float(rate) if rate else None
        self.length = stream.frames or None

    def __iter__(self) -> Iterator[Frame | Skipped]:
        seq = decoded = 0
        clock = MediaClock(self._decoder.start_s, self.fps)
        try:
            for item in self._decoder.pictures():
                decoded += not isinstance(item, Undecodable)
                yield self._frame(item, seq, clock)
                seq += 1
        except FFmpegError as error:
            raise SourceLost(
                f"{self.uri}: cannot be read after frame {seq}: {words_of(error)}; the results so far are kept"
            ) from error
        if self._decoder.closed:
            return
        if not decoded:
            raise SourceRefused(f"{self.uri}: no frame could be decoded; the file may be truncated or damaged")
        if self._decoder.is_cut_off(self._path):
            of = f" of {self.length}" if self.length else ""
            raise SourceLost(
                f"{self.uri}: stopped after frame {seq}{of}; the file is truncated there; the results up to that frame are kept"
            )

    def _frame(self, item: av.VideoFrame | Undecodable, seq: int, clock: MediaClock) -> Frame | Skipped:
        if isinstance(item, Undecodable):
            return Skipped(seq, "decode_error", f"{self.uri}: frame {seq}: {item.reason}")
        return Frame(self._orientation.upright(item), seq, self.uri, media_time_s=clock.time_of(item))

    def close(self) -> None:
        self._decoder.close()


@final
class MediaClock:
    """The time of each picture in seconds from the start of a recording; None if unknown.

    A raw stream has no time stamps: each picture is then one frame interval later than the previous one.
    """

    def __init__(self, start_s: float, fps: float | None) -> None:
        self._start_s = start_s
        self._interval_s = 1 / fps if fps else None
        self._next: float | None = 0.0

    def time_of(self, picture: av.VideoFrame) -> float | None:
        stamped = seconds_of(picture)
        seconds = self._next if stamped is None else stamped - self._start_s
        self._next = None if seconds is None or self._interval_s is None else seconds + self._interval_s
        return seconds


def seconds_of(picture: Any) -> float | None:
    """According to PyAV's type stub, every picture has a time."""
    return picture.time


@final
class StreamSource:
    """A network stream (RTSP, HTTP, SRT or another protocol of FFmpeg), with a timeout for opening and for every read."""

    live = True
    length = None

    def __init__(self, rest: str) -> None:
        self.uri = redacted(rest)
        try:
            self._decoder = Decoder(open_stream(rest), low_delay=True)
        except (FFmpegError, SourceRefused) as error:
            raise SourceRefused(
                f"{self.uri}: no stream ({words_of(error)}; timeout {STREAM_TIMEOUT_S:.0f} s); check the address, the "
                "network and the camera"
            ) from error
        rate = self._decoder.stream.average_rate
        self.fps = float(rate) if rate else None

    def __iter__(self) -> Iterator[Frame | Skipped]:
        orientation = OrientationReader()
        try:
            for seq, item in enumerate(self._decoder.pictures()):
                if isinstance(item, Undecodable):
                    yield Skipped(seq, "decode_error", f"{self.uri}: frame {seq}: {item.reason}")
                else:
                    yield Frame(orientation.upright(item), seq, self.uri)
        except FFmpegError as error:
            raise SourceLost(
                f"{self.uri}: the stream was interrupted: {words_of(error)}; the results so far are kept"
            ) from error
        raise SourceLost(f"{self.uri}: the stream ended; the results so far are kept")

    def close(self) -> None:
        self._decoder.close()
