"""The sink registry and its URI grammar.

| URI | sink |
|---|---|
| `jsonl:log.jsonl`, `jsonl:-` | one JSON object per line, appended to the file; `-` is standard output |
| `csv:results.csv`, `csv:-` | one row per frame, for spreadsheets and data frames |
| `video:out.mp4` | the frames with the predictions drawn on them; `out-2.mp4` if the file exists (extra `opencv`) |
| `log:FOLDER` | lines with a CRC-32 in segments of limited total size, on disk within a second |
| `unknown:FOLDER?keep=20&total_mb=16` | the frames that the model knows least, as JPEG with their results, within both limits |
| `geojson:places.geojsonl` | one GeoJSON feature per frame with a known position |
| `udp://HOST:PORT` | one binary record per datagram (`record_codec.py`) |
| `unix:/run/x.sock` | the same records to programs on this computer |
| `ccsds+udp://HOST:PORT?apid=0x2a` | the same records in space packets (extra `ccsds`) |
| `mavlink:udpout:HOST:14550` | a vehicle's network, as an onboard computer (extra `mavlink`) |
| `mqtt://HOST/TOPIC`, `mqtts://…` | an MQTT broker, with a last will (extra `mqtt`) |
| `null:` | nowhere |
| `NAME:REST` | a sink of an installed package, by the entry point `spatialnet_edge.sinks` |

Each sink has its own bounded queue and thread (`QueuedSink`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.plugins import Plugin, known
from spatialnet_edge.core.results import FrameResult


class Sink(Protocol):
    """Receives results one by one; `close` flushes and may be called twice.

    The protocols below are optional: a sink that has their attributes or methods has that ability. All sinks except `video:`,
    `log:` and `unknown:` (which have their own size limits) and `null:` accept `?budget=BYTES_A_SECOND`.
    """

    def write(self, result: FrameResult) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class PixelChoice(Protocol):
    """A sink that declares whether it reads pixels. With False, frames are queued without their pixels; the default is True."""

    wants_pixels: bool


@runtime_checkable
class Flushable(Protocol):
    """A sink with work to do between results. `flush` is called about twice a second while there is nothing to write."""

    def flush(self) -> None: ...


@runtime_checkable
class Reporting(Protocol):
    """A sink that reports events. `report` is called with an event's name and one line; it is set after the sink is opened."""

    report: Callable[[str, str], None] | None


@runtime_checkable
class CountsLost(Protocol):
    """A sink that counts undelivered results instead of raising an error for each."""

    @property
    def lost(self) -> int: ...


@runtime_checkable
class CountsOverBudget(Protocol):
    """A sink that counts the results that exceeded its byte budget."""

    @property
    def over_budget(self) -> int: ...


@runtime_checkable
class CountsClients(Protocol):
    """A sink that serves several clients.

    Attributes:
        missed: undelivered results, counted per client.
        turned_away: clients rejected because of the client limit.
    """

    @property
    def missed(self) -> int: ...

    @property
    def turned_away(self) -> int: ...


SINKS: Mapping[str, Plugin] = {
    "jsonl": Plugin("spatialnet_edge.sinks.jsonl:JsonlSink", parser="spatialnet_edge.sinks.jsonl:parse_jsonl"),
    "csv": Plugin("spatialnet_edge.sinks.csv:CsvSink", parser="spatialnet_edge.sinks.jsonl:parse_jsonl"),
    "video": Plugin("spatialnet_edge.sinks.video:VideoSink", "cv2", "opencv", "spatialnet_edge.sinks.video:parse_video"),
    "log": Plugin("spatialnet_edge.sinks.log:LogSink", parser="spatialnet_edge.sinks.log:parse_log"),
    "geojson": Plugin("spatialnet_edge.sinks.geojson:GeoJsonSink", parser="spatialnet_edge.sinks.jsonl:parse_jsonl"),
    "unknown": Plugin(
        "spatialnet_edge.sinks.unknown_frames:UnknownFramesSink", parser="spatialnet_edge.sinks.unknown_frames:parse_unknown"
    ),
    "udp": Plugin("spatialnet_edge.sinks.udp:UdpSink", parser="spatialnet_edge.sinks.udp:parse_udp"),
    "unix": Plugin("spatialnet_edge.sinks.unix:UnixSink", parser="spatialnet_edge.sinks.unix:parse_unix"),
    "ccsds+udp": Plugin("spatialnet_edge.sinks.udp:CcsdsUdpSink", parser="spatialnet_edge.sinks.udp:parse_ccsds"),
    "mavlink": Plugin("spatialnet_edge.sinks.mavlink:MavlinkSink", parser="spatialnet_edge.sinks.mavlink:parse_mavlink"),
    "mqtt": Plugin("spatialnet_edge.sinks.mqtt:MqttSink", parser="spatialnet_edge.sinks.mqtt:parse_mqtt"),
    "mqtts": Plugin("spatialnet_edge.sinks.mqtt:over_tls", parser="spatialnet_edge.sinks.mqtt:parse_mqtts"),
    "null": Plugin("spatialnet_edge.sinks.memory:NullSink"),
}

OWNERS = frozenset({"jsonl", "csv", "video", "log", "geojson", "unix", "unknown"})
"""Sinks that need exclusive use of their file, folder or socket."""


def open_sink(uri: str) -> Sink:
    """Open the sink that a URI names, without a queue.

    Raises:
        UsageError: no such sink.
        SinkRefused: it cannot be opened for writing.
        SinkError: the disk is full; a retry may succeed.
        MissingExtra: its library is not installed.
    """
    plugin, rest = _row_of(uri)
    sink: Sink = plugin.load()(rest)
    return sink


def check_sink(uri: str) -> None:
    """Validate a URI with all its options without opening anything.

    Raises:
        UsageError, Refused: the URI is invalid for `open_sink`.
        MissingExtra: its library is not installed.
    """
    plugin, rest = _row_of(uri)
    plugin.load()
    plugin.parse(rest)


def place_of(uri: str) -> str | None:
    """The file, folder or socket that a sink uses exclusively, as a canonical path; None for other sinks."""
    scheme, _, rest = uri.partition(":")
    path = rest.partition("?")[0]
    return os.path.realpath(path) if scheme in OWNERS and path != "-" else None


def _row_of(uri: str) -> tuple[Plugin, str]:
    scheme, colon, rest = uri.partition(":")
    table = known("sinks", SINKS)
    if not colon or scheme not in table:
        raise UsageError(f"no sink '{uri}'; a sink is NAME:WHERE with NAME one of {', '.join(sorted(table))}")
    return table[scheme], rest


def names_of(uris: Sequence[str]) -> list[str]:
    """Names for sinks, such as `mqtt` and `mqtt-2`. They do not show the URI, which may contain a password."""
    kinds = [uri.partition(":")[0] for uri in uris]
    before = [kinds[:index].count(kind) for index, kind in enumerate(kinds)]
    return [f"{kind}-{count + 1}" if count else kind for kind, count in zip(kinds, before, strict=True)]
