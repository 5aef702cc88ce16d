"""`payload.toml`: everything that a service is told, checked before any work is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.sinks.registry import OWNERS

Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Immutable, and strict about names that it does not know."""


class SourceSection(Section, frozen=True):
    """One camera and what becomes of its frames.

    Attributes:
        uri: see `spatialnet_edge.sources`.
        sinks: see `spatialnet_edge.sinks`; of these alone.
        deadline_ms: from capture to the complete result; 0 for none.
        late: what happens to a frame past its deadline.
        silence_s: a camera that gives nothing for so long is taken to hang.
        pose: where positions come from: empty, or `mavlink:CONNECTION`.
    """

    uri: str
    sinks: tuple[str, ...] = ()
    policy: str = "latest"
    smooth_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    deadline_ms: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    late: Literal["mark", "drop"] = "mark"
    silence_s: Seconds = 1.5
    pose: str = ""


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
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    batch: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    batch_wait_ms: Annotated[float, msgspec.Meta(ge=0)] = 4.0


class HealthSection(Section, frozen=True):
    """How it watches itself.

    Attributes:
        file: rewritten every second; what `spatialnet-edge health` reads.
        golden_s: time in which every golden frame is asked once again.
        scrub_s: time in which every byte of the weights is checked once against its checksum; 0 for never, which leaves it to the
            golden frames. On ONNX Runtime's CPU backend alone, where it takes 4 to 30 % of the engine's speed (decision 0011).
        mark_good_s: a bundle on trial that has worked for so long is kept.
        hang_s: without a sign of life from every pipeline for so long, the process ends itself, should no watchdog do it.
    """

    file: str = "/run/spatialnet-edge/health.json"
    golden_s: Seconds = 60.0
    scrub_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    mark_good_s: Seconds = 60.0
    hang_s: Seconds = 12.0


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
        if not self.cool_c < self.hot_c:
            raise ValueError(f"cool_c {self.cool_c} must be below hot_c {self.hot_c}")


class ServiceConfig(Section, frozen=True):
    """The whole file.

    Attributes:
        root: slots, counts of starts, events and the lock are kept here.
        bundle: fly this one and leave the slots alone; empty for what is installed.
        trust: folder of public keys; empty for the one of this computer.
        compatible: names of models that may take the place of the one that flies; another name is refused.
        device: what one process alone may use; the name of the lock.
    """

    sources: Annotated[tuple[SourceSection, ...], msgspec.Meta(min_length=1)]
    root: str = "/var/lib/spatialnet-edge"
    bundle: str = ""
    trust: str = ""
    allow_unsigned: bool = False
    compatible: tuple[str, ...] = ()
    device: Annotated[str, msgspec.Meta(pattern="^[a-z0-9_-]{1,32}$")] = "engine"
    engine: EngineSection = EngineSection()
    health: HealthSection = HealthSection()
    limits: LimitsSection = LimitsSection()

    def __post_init__(self) -> None:
        refuse_twice("source", [section.uri for section in self.sources], "one camera has one section, with all its sinks")
        places = [uri.partition("?")[0] for section in self.sources for uri in section.sinks]
        owned = [place for place in places if place.partition(":")[0] in OWNERS]
        refuse_twice("sink", owned, "give each camera a place of its own")


def refuse_twice(what: str, uris: Sequence[str], advice: str) -> None:
    """Raises `ValueError` for the first URI that is there more than once."""
    for uri, times in Counter(uris).items():
        if times > 1:
            raise ValueError(f"the {what} '{uri}' is there {times} times; {advice}")


def load_service_config(path: Path) -> ServiceConfig:
    """Read and check a TOML file.

    Raises:
        UsageError: it cannot be read, is no TOML, or has an unknown or impossible value, which is named.
    """
    try:
        return msgspec.toml.decode(path.read_bytes(), type=ServiceConfig)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read by this user: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}; see firmware_examples/systemd/payload.toml for what there is") from error
