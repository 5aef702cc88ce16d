"""`payload.toml`: everything that a service is told, checked before any work is done."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from spatialnet_edge.core.errors import ConfigRefused, SpatialNetError
from spatialnet_edge.core.frame_queue import parse_policy
from spatialnet_edge.core.plugins import known
from spatialnet_edge.core.redaction import redacted
from spatialnet_edge.engines.registry import BACKENDS
from spatialnet_edge.service.metrics import require_prometheus
from spatialnet_edge.sinks.registry import check_sink, place_of
from spatialnet_edge.sources.pose import parse_pose
from spatialnet_edge.sources.registry import camera_node, parse_uri

Seconds = Annotated[float, msgspec.Meta(gt=0, le=1e7)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e7)]
CAMERA = "{camera}"
"""Stands for the name of a camera in the sinks that several cameras share."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Immutable, and strict about names that it does not know and about numbers that are none."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} = {value}: expected a finite number")


class SourceSection(Section, frozen=True):
    """One camera and what becomes of its frames.

    Attributes:
        uri: see `spatialnet_edge.sources`.
        name: what people call it, in results, events and the health file; None for the URI without user and password.
        sinks: see `spatialnet_edge.sinks`; of these alone.
        policy: `latest`, `queue:N` or `every`.
        deadline_ms: from capture to the complete result; 0 for none.
        late: what happens to a frame past its deadline.
        silence_s: a camera that gives nothing for so long is taken to hang.
        pose: where positions come from: empty, or `mavlink:CONNECTION`.
    """

    uri: Annotated[str, msgspec.Meta(min_length=1)]
    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] | None = None
    sinks: tuple[str, ...] = ()
    policy: str = "latest"
    smooth_s: Annotated[float, msgspec.Meta(ge=0, le=1e7)] = 0.0
    deadline_ms: Milliseconds = 0.0
    late: Literal["mark", "drop"] = "mark"
    silence_s: Seconds = 1.5
    pose: str = ""

    @property
    def shown(self) -> str:
        """What people call it."""
        return self.name or redacted(self.uri)


class EngineSection(Section, frozen=True):
    """How the model runs.

    Attributes:
        backend: this one alone; empty for the bundle's order of preference.
        fallback: whether the portable graph may stand in for an engine that this device cannot run.
        threads: of one inference on a CPU; 0 for one a core.
        batch: frames of several sources that may share one inference; 1 for none.
        batch_wait_ms: how long the first of them waits for others.
    """

    backend: str = ""
    fallback: bool = True
    threads: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    batch: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    batch_wait_ms: Milliseconds = 4.0


class HealthSection(Section, frozen=True):
    """How it watches itself.

    Attributes:
        file: rewritten every second; what `spatialnet-edge health` reads.
        golden_s: time in which every golden frame is asked once again.
        scrub_s: time in which every byte of the weights is checked once against its checksum; 0 for never, which leaves it to the
            golden frames. On ONNX Runtime's CPU backend alone, where it takes 4 to 30 % of the engine's speed (decision 0011).
        mark_good_s: a bundle on trial that has worked for so long is kept.
        hang_s: without a sign of life from every pipeline for so long, the process ends itself, should no watchdog do it.
        start_s: loading a bundle and its golden test may take so long; then the process ends itself.
        result_s: a camera without a result, or a sink that took none, for so long makes the service DEGRADED.
        metrics: a file in Prometheus' text format, for node_exporter's textfile collector (extra `metrics`); empty for none.
    """

    file: Annotated[str, msgspec.Meta(min_length=1)] = "/run/spatialnet-edge/health.json"
    golden_s: Seconds = 60.0
    scrub_s: Annotated[float, msgspec.Meta(ge=0, le=1e7)] = 0.0
    mark_good_s: Seconds = 60.0
    hang_s: Annotated[float, msgspec.Meta(ge=1, le=1e6)] = 12.0
    start_s: Annotated[float, msgspec.Meta(ge=1, le=1e6)] = 45.0
    result_s: Seconds = 10.0
    metrics: str = ""


class LimitsSection(Section, frozen=True):
    """When to do less.

    Attributes:
        hot_c, cool_c: at the first temperature (°C) of any zone the rate falls, below the second it rises again.
        low_battery: in per cent; 0 for never.
        slow_hz: frames classified a second while hot or low on power.
    """

    hot_c: float = 90.0
    cool_c: float = 80.0
    low_battery: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0
    slow_hz: Seconds = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.cool_c < self.hot_c:
            raise ValueError(f"cool_c {self.cool_c} must be below hot_c {self.hot_c}")


class ServiceConfig(Section, frozen=True):
    """The whole file.

    Cameras stand in the table `cameras`, each under its name: a URI, or a table with the fields of `SourceSection`. A list
    `[[sources]]` of such tables does as well.

    Attributes:
        sinks: of every camera that has none of its own; `{camera}` in them stands for the camera's name.
        root: slots, counts of starts, events and the lock are kept here.
        bundle: fly this one and leave the slots alone; empty for what is installed.
        trust: folder of public keys; empty for the one of this computer.
        compatible: names of models that may take the place of the one that flies; another name is refused.
        device: what one process alone may use; the name of the lock.
    """

    sources: Annotated[tuple[SourceSection, ...], msgspec.Meta(min_length=1)]
    sinks: tuple[str, ...] = ()
    root: Annotated[str, msgspec.Meta(min_length=1)] = "/var/lib/spatialnet-edge"
    bundle: str = ""
    trust: str = ""
    allow_unsigned: bool = False
    compatible: tuple[str, ...] = ()
    device: Annotated[str, msgspec.Meta(pattern="^[a-z0-9_-]{1,32}$")] = "engine"
    engine: EngineSection = EngineSection()
    health: HealthSection = HealthSection()
    limits: LimitsSection = LimitsSection()


SECTIONS: Mapping[str, type[Section]] = {"engine": EngineSection, "health": HealthSection, "limits": LimitsSection}


def load_service_config(path: Path) -> ServiceConfig:
    """Read and check a TOML file: syntax, keys, numbers, and every URI with its options. Opens nothing.

    Raises:
        ConfigRefused: it cannot be read, is no TOML, or has an unknown or impossible value, which is named.
    """
    example = "see firmware_examples/systemd/payload.toml for what there is"
    try:
        content: Any = msgspec.toml.decode(path.read_bytes())
        tables = cameras_as_sources(content)
        refuse_unknown_keys(tables)
        config = msgspec.convert(tables, ServiceConfig)
        check(config)
    except OSError as error:
        raise ConfigRefused(f"{path}: cannot be read by user {os.geteuid()}: {error.strerror}") from error
    except RecursionError as error:
        raise ConfigRefused(f"{path}: nested too deeply; {example}") from error
    except (ValueError, SpatialNetError) as error:
        raise ConfigRefused(f"{path}: {error}; {example}") from error
    return config


class CameraTables(msgspec.Struct):
    """The part of the file that says what cameras there are, before its keys are checked."""

    cameras: dict[str, str | dict[str, Any]] = {}
    sources: list[dict[str, Any]] = []
    sinks: list[str] = []


def cameras_as_sources(content: Any) -> dict[str, Any]:
    """The same tables with `cameras` moved to `sources`, and the shared sinks given to those that have none.

    Raises:
        ValueError: `cameras` is no table of URIs and tables, or `sources` no list of tables.
    """
    tables = msgspec.convert(content, CameraTables)
    named = [{"name": name, **({"uri": value} if isinstance(value, str) else value)} for name, value in tables.cameras.items()]
    sources = [{"sinks": shared_sinks(tables.sinks, section.get("name")), **section} for section in (*tables.sources, *named)]
    return {name: value for name, value in content.items() if name != "cameras"} | {"sources": sources}


def shared_sinks(uris: Sequence[str], name: Any) -> list[str]:
    """The sinks of one camera; one without a name keeps `{camera}`, which `check` refuses."""
    return [uri.replace(CAMERA, name) for uri in uris] if isinstance(name, str) else [*uris]


def refuse_unknown_keys(tables: Mapping[str, Any]) -> None:
    """Raises `ValueError` for the first key that there is not, with the nearest one that there is."""
    rows: list[tuple[str, Any, type[Section]]] = [("", tables, ServiceConfig)]
    rows += [(f"[{name}] ", tables.get(name, {}), kind) for name, kind in SECTIONS.items()]
    rows += [(f"source {number}: ", section, SourceSection) for number, section in enumerate(tables["sources"], 1)]
    for where, table, kind in rows:
        keys = kind.__struct_fields__ + (("cameras",) if kind is ServiceConfig else ())
        for key in msgspec.convert(table, dict[str, Any]):
            if key not in keys:
                near = get_close_matches(key, keys, 1)
                advice = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(keys)}"
                raise ValueError(f"{where}no key '{key}'; {advice}")


def check(config: ServiceConfig) -> None:
    """What the types do not say: names and URIs with their options.

    Raises:
        ValueError: two cameras or sinks that are one.
        SpatialNetError: something that nothing here knows.
    """
    for section in config.sources:
        parse_uri(section.uri)
        parse_policy(section.policy)
        if section.pose:
            parse_pose(section.pose)
        for uri in section.sinks:
            check_sink(uri)
            if CAMERA in uri:
                raise ValueError(f"the sink '{uri}' is for cameras with a name; the source '{section.shown}' has none")
    if config.health.metrics:
        require_prometheus()
        if not config.health.metrics.endswith(".prom"):
            raise ValueError(f"[health] metrics = '{config.health.metrics}': node_exporter reads files that end in .prom")
    backends = known("backends", BACKENDS)
    if config.engine.backend and config.engine.backend not in backends:
        raise ValueError(f"[engine] no backend '{config.engine.backend}'; there are {', '.join(sorted(backends))}")
    refuse_twice("source", [one_spelling(section.uri) for section in config.sources], "one camera has one section")
    refuse_twice("camera's name", [section.shown for section in config.sources], "give each camera a name of its own")
    events = os.path.realpath(Path(config.root) / "events")
    places = [place for section in config.sources for uri in section.sinks if (place := place_of(uri))]
    refuse_twice("sink's place", [*places, events], "give each sink a place of its own")


def one_spelling(uri: str) -> str:
    """`0` and `/dev/video0` are one camera, and so is a link to it. Without user and password."""
    node = camera_node(uri)
    return os.path.realpath(node) if node is not None else redacted(uri)


def refuse_twice(what: str, names: Sequence[str], advice: str) -> None:
    """Raises `ValueError` for the first name that is there more than once."""
    for name, times in Counter(names).items():
        if times > 1:
            raise ValueError(f"the {what} '{name}' is there {times} times; {advice}")
