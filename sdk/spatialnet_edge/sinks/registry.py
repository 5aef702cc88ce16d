"""Where results go, and the URIs that name it.

| URI | sink |
|---|---|
| `jsonl:log.jsonl`, `jsonl:-` | one JSON object a line, added to what is there; `-` is standard output |
| `csv:results.csv`, `csv:-` | one row a frame, for spreadsheets and data frames |
| `video:out.mp4` | the frames with the answers drawn on them; `out-2.mp4` if it is there already (extra `opencv`) |
| `log:FOLDER` | lines with a CRC-32 in segments under a cap, on the disk within a second |
| `geojson:places.geojsonl` | one GeoJSON feature a frame that knows where it was taken |
| `udp://HOST:PORT` | one binary record a datagram (`wire.py`) |
| `unix:/run/x.sock` | the same records to programs on this computer |
| `ccsds+udp://HOST:PORT?apid=0x2a` | the same records in space packets (extra `ccsds`) |
| `mavlink:udpout:HOST:14550` | into a vehicle's network, as an onboard computer (extra `mavlink`) |
| `mqtt://HOST/TOPIC`, `mqtts://…` | to a broker, with a last will (extra `mqtt`) |
| `null:` | nowhere |
| `NAME:REST` | whatever an installed package adds under the entry point `spatialnet_edge.sinks` |

Each sink works behind a bounded queue and a thread of its own (`QueuedSink`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.plugins import Plugin, known
from spatialnet_edge.core.results import FrameResult


class Sink(Protocol):
    """Takes results one by one; `close` flushes and may be called twice.

    The Protocols below are optional: a sink that has their attributes or methods has that ability. All sinks but `video:`,
    `log:` (which has caps of its own) and `null:` take `?budget=BYTES_A_SECOND`.
    """

    def write(self, result: FrameResult) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class PixelChoice(Protocol):
    """A sink that says whether it reads pixels. With False, frames are queued without their pixels; the default is True."""

    wants_pixels: bool


@runtime_checkable
class Flushable(Protocol):
    """A sink with work to do between results. `flush` is called about twice a second while there is nothing to write."""

    def flush(self) -> None: ...


@runtime_checkable
class Reporting(Protocol):
    """A sink that reports events. `report` takes the name of an event and one line; it is set after the sink is opened."""

    report: Callable[[str, str], None] | None


@runtime_checkable
class CountsLost(Protocol):
    """A sink that counts the results that it could not deliver, rather than raise an error for each."""

    @property
    def lost(self) -> int: ...


@runtime_checkable
class CountsOverBudget(Protocol):
    """A sink that counts the results that its budget of bytes a second did not allow."""

    @property
    def over_budget(self) -> int: ...


@runtime_checkable
class CountsClients(Protocol):
    """A sink that serves several clients.

    Attributes:
        missed: results that one client did not get, counted for each client.
        turned_away: clients that were refused because the sink serves as many as it can.
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
    "udp": Plugin("spatialnet_edge.sinks.udp:UdpSink", parser="spatialnet_edge.sinks.udp:parse_udp"),
    "unix": Plugin("spatialnet_edge.sinks.unix:UnixSink", parser="spatialnet_edge.sinks.unix:parse_unix"),
    "ccsds+udp": Plugin("spatialnet_edge.sinks.udp:CcsdsUdpSink", parser="spatialnet_edge.sinks.udp:parse_ccsds"),
    "mavlink": Plugin("spatialnet_edge.sinks.mavlink:MavlinkSink", parser="spatialnet_edge.sinks.mavlink:parse_mavlink"),
    "mqtt": Plugin("spatialnet_edge.sinks.mqtt:MqttSink", parser="spatialnet_edge.sinks.mqtt:parse_mqtt"),
    "mqtts": Plugin("spatialnet_edge.sinks.mqtt:over_tls", parser="spatialnet_edge.sinks.mqtt:parse_mqtts"),
    "null": Plugin("spatialnet_edge.sinks.memory:NullSink"),
}

OWNERS = frozenset({"jsonl", "csv", "video", "log", "geojson", "unix"})
"""What has its file, folder or socket to itself: a second one there would spoil it."""


def open_sink(uri: str) -> Sink:
    """Open what a URI names, without a queue around it.

    Raises:
        UsageError: no such sink.
        SinkRefused: it cannot be opened for writing.
        SinkError: the disk is full, and may have room later.
        MissingExtra: its library is not installed.
    """
    plugin, rest = _row_of(uri)
    sink: Sink = plugin.load()(rest)
    return sink


def check_sink(uri: str) -> None:
    """Read a URI with all its options, and open nothing.

    Raises:
        UsageError, Refused: `open_sink` would not take it, whatever is at the other end.
        MissingExtra: its library is not installed.
    """
    plugin, rest = _row_of(uri)
    plugin.load()
    plugin.parse(rest)


def place_of(uri: str) -> str | None:
    """The file, folder or socket that a sink has to itself, in one spelling; None for sinks that share."""
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
    """`mqtt`, `mqtt-2` …: each sink by a name that does not show its URI, which may hold a password."""
    kinds = [uri.partition(":")[0] for uri in uris]
    before = [kinds[:index].count(kind) for index, kind in enumerate(kinds)]
    return [f"{kind}-{count + 1}" if count else kind for kind, count in zip(kinds, before, strict=True)]
