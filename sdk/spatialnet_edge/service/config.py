"""The configuration file `payload.toml`, validated before any work is done."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from spatialnet_edge.bundle.reader import BUILTIN_PREFIX
from spatialnet_edge.bundle.trust import SYSTEM_STORE, Trust, open_trust
from spatialnet_edge.core.errors import ConfigRefused, SpatialNetError
from spatialnet_edge.core.frame_queue import parse_policy
from spatialnet_edge.core.plugins import known
from spatialnet_edge.core.redaction import redacted
from spatialnet_edge.engines.registry import BACKENDS
from spatialnet_edge.service.metrics import require_prometheus
from spatialnet_edge.sinks.registry import check_sink, place_of
from spatialnet_edge.sources.credentials import with_credentials
from spatialnet_edge.sources.pose import check_pose
from spatialnet_edge.sources.registry import camera_node, check_source, parse_uri

Seconds = Annotated[float, msgspec.Meta(ge=1e-3, le=1e7)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e7)]
CAMERA = "{camera}"
"""Placeholder for the camera's name in shared sinks."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all sections: immutable; unknown keys and non-finite numbers are refused."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} = {value}: expected a finite number")


class SourceSection(Section, frozen=True):
    """One camera and its sinks.

    Attributes:
        uri: see `spatialnet_edge.sources`.
        name: display name in results, events and the health file; None: the URI without user and password.
        sinks: only for this camera; see `spatialnet_edge.sinks`.
        policy: `latest`, `queue:N` or `every`.
        deadline_ms: from capture to the complete result; 0: no deadline.
        late: what happens to a late frame.
        silence_s: a camera without a frame for this many seconds counts as hung.
        pose: source of positions: empty, or `mavlink:CONNECTION`.
        gsd, fov_deg, ground_m: scale of the frames; see `StreamOptions`.
        heads: heads of the results; empty: all but those for evaluation, as in `run`; `["all"]`: every head of the model.
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
    gsd: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    fov_deg: Annotated[float, msgspec.Meta(gt=0, lt=180)] | None = None
    ground_m: Annotated[float, msgspec.Meta(ge=-1000, le=10_000)] = 0.0
    heads: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The display name."""
        return self.name or redacted(self.uri)


class EngineSection(Section, frozen=True):
    """Engine options.

    Attributes:
        backend: use only this one; empty: the bundle's order of preference.
        fallback: whether other variants may be used if this device cannot run the preferred one.
        threads: per inference on a CPU; 0: one per core.
        batch: frames of several sources that may share one inference; 1: no batching.
        batch_wait_ms: how long the first frame waits for others.
    """

    backend: str = ""
    fallback: bool = True
    threads: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    batch: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    batch_wait_ms: Milliseconds = 4.0


class HealthSection(Section, frozen=True):
    """Monitoring options.

    Attributes:
        file: the health file, rewritten every second and read by `spatialnet-edge health`.
        golden_s: time in which every golden frame is run once.
        scrub_s: time in which the checksum of every weight is verified once; 0: never, golden frames only. Only for ONNX
            Runtime's CPU backend, where it costs 4 to 30 % of the engine's speed (decision 11).
        mark_good_s: a bundle on trial is kept after working this long.
        hang_s: if a pipeline makes no progress for this long and no systemd watchdog acts, the process exits.
        start_s: time limit for loading a bundle and its golden test; after it the process exits.
        result_s: the service is DEGRADED if a camera has no result, or a sink accepts none, for this long.
        metrics: a file in Prometheus' text format, for node_exporter's textfile collector (extra `metrics`); empty: none.
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
    """Throttling options.

    Attributes:
        hot_c, cool_c: the rate is reduced at `hot_c` (°C, any zone) and restored below `cool_c`.
        low_battery: in per cent; 0: never.
        slow_hz: frames per second while hot or low on power.
    """

    hot_c: float = 90.0
    cool_c: float = 80.0
    low_battery: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0
    slow_hz: Annotated[float, msgspec.Meta(ge=1e-3, le=1000)] = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.cool_c < self.hot_c:
            raise ValueError(f"cool_c {self.cool_c} must be below hot_c {self.hot_c}")


class ServiceConfig(Section, frozen=True):
    """The complete configuration.

    The table `cameras` maps names to cameras: a URI, or a table with the fields of `SourceSection`. A list
    `[[sources]]` of such tables is also accepted.

    Attributes:
        sinks: for every camera without its own; `{camera}` is replaced by the camera's name.
        root: folder of the slots, the start counter, the events and the lock.
        bundle: use this bundle instead of the installed ones; empty: the installed ones.
        trust: folder of public keys; empty: this computer's trust store.
        compatible: names of models that may replace the active one; other names are refused.
        device: name of the lock; only one process may use a device.
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
    """Read and validate a TOML file: syntax, keys, numbers, every URI with its options, and whether the optional libraries that it
    needs are installed. Opens nothing.

    Raises:
        ConfigRefused: it cannot be read, is not TOML, or has an unknown key or invalid value, which is named.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigRefused(f"{path}: cannot be read by user {os.geteuid()}: {error.strerror}") from error
    return parse_service_config(raw, path)


def parse_service_config(raw: bytes, path: Path) -> ServiceConfig:
    """Validate the content of the file at `path`. Opens nothing.

    Raises:
        ConfigRefused: see `load_service_config`.
    """
    example = "see firmware_examples/systemd/payload.toml for an example"
    try:
        content: Any = msgspec.toml.decode(raw)
        tables = cameras_as_sources(content)
        refuse_unknown_keys(tables)
        config = msgspec.convert(tables, ServiceConfig)
        check(config)
    except RecursionError as error:
        raise ConfigRefused(f"{path}: nested too deeply; {example}") from error
    except (ValueError, SpatialNetError) as error:
        raise ConfigRefused(f"{path}: {error}; {example}") from error
    return config


class CameraTables(msgspec.Struct):
    """The camera tables of the file, before their keys are checked."""

    cameras: dict[str, str | dict[str, Any]] = {}
    sources: list[dict[str, Any]] = []
    sinks: list[str] = []


def cameras_as_sources(content: Any) -> dict[str, Any]:
    """Move `cameras` to `sources`, and give the shared sinks to cameras without their own.

    Raises:
        ValueError: `cameras` is not a table of URIs and tables, or `sources` is not a list of tables.
    """
    tables = msgspec.convert(content, CameraTables)
    named = [{"name": name, **({"uri": value} if isinstance(value, str) else value)} for name, value in tables.cameras.items()]
    sources = [{"sinks": shared_sinks(tables.sinks, section.get("name")), **section} for section in (*tables.sources, *named)]
    return {name: value for name, value in content.items() if name != "cameras"} | {"sources": sources}


def shared_sinks(uris: Sequence[str], name: Any) -> list[str]:
    """The shared sinks for one camera. Without a name, `{camera}` is kept, and `check` refuses it."""
    return [uri.replace(CAMERA, name) for uri in uris] if isinstance(name, str) else [*uris]


def refuse_unknown_keys(tables: Mapping[str, Any]) -> None:
    """Raise `ValueError` for the first unknown key, with the nearest valid one."""
    rows: list[tuple[str, Any, type[Section]]] = [("", tables, ServiceConfig)]
    rows += [(f"[{name}] ", tables.get(name, {}), kind) for name, kind in SECTIONS.items()]
    rows += [(f"source {number}: ", section, SourceSection) for number, section in enumerate(tables["sources"], 1)]
    for where, table, kind in rows:
        keys = kind.__struct_fields__ + (("cameras",) if kind is ServiceConfig else ())
        for key in msgspec.convert(table, dict[str, Any]):
            if key not in keys:
                near = get_close_matches(key, keys, 1)
                advice = f"did you mean '{near[0]}'?" if near else f"valid keys: {', '.join(keys)}"
                raise ValueError(f"{where}unknown key '{key}'; {advice}")


def check(config: ServiceConfig) -> None:
    """Validate what the types cannot: names, and URIs with their options.

    Raises:
        ValueError: two cameras or sinks are the same.
        SpatialNetError: an unknown scheme, backend or option.
    """
    for section in config.sources:
        check_source(section.uri)
        if parse_uri(section.uri).kind == "stream":
            with_credentials(section.uri)
        parse_policy(section.policy)
        if section.pose:
            check_pose(section.pose)
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
        raise ValueError(f"[engine] no backend '{config.engine.backend}'; available: {', '.join(sorted(backends))}")
    if config.engine.backend:
        backends[config.engine.backend].require()
    refuse_twice("source", [one_spelling(section.uri) for section in config.sources], "use one section per camera")
    refuse_twice("camera's name", [section.shown for section in config.sources], "give each camera a different name")
    events = os.path.realpath(Path(config.root) / "events")
    places = [place for section in config.sources for uri in section.sinks if (place := place_of(uri))]
    refuse_twice("sink's place", [*places, events], "give each sink a different file, folder or socket")


def trust_of(config: ServiceConfig) -> Trust:
    """Whom this computer trusts, as the configuration says.

    Raises:
        ConfigRefused: the trust store is empty, or a key in it cannot be read; or there is no key at all, so that no bundle could
            ever be accepted.
    """
    try:
        trust = open_trust(Path(config.trust) if config.trust else None, config.allow_unsigned)
    except SpatialNetError as error:
        raise ConfigRefused(f"trust: {error}") from error
    if not (trust.keys or trust.allow_unsigned or config.bundle.startswith(BUILTIN_PREFIX)):
        raise ConfigRefused(
            f"trust: this computer has no trusted keys, so that every bundle is refused; put a public key into {SYSTEM_STORE} "
            f"('spatialnet-edge keygen' makes a pair), name the folder under 'trust', or say allow_unsigned = true"
        )
    return trust


def one_spelling(uri: str) -> str:
    """Canonical name of a camera: `0`, `/dev/video0` and links to it are one camera. Without user and password."""
    node = camera_node(uri)
    return os.path.realpath(node) if node is not None else redacted(uri)


def refuse_twice(what: str, names: Sequence[str], advice: str) -> None:
    """Raise `ValueError` for the first duplicate name."""
    for name, times in Counter(names).items():
        if times > 1:
            raise ValueError(f"the {what} '{name}' occurs {times} times; {advice}")
