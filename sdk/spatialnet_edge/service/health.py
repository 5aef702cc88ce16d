"""What a service says of itself, for people, supervisors and the ground."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from spatialnet_edge.core.clock import boot_id, since_boot
from spatialnet_edge.core.errors import SourceRefused

STALE_S = 10.0
WORKING = ("READY", "DEGRADED", "SAFE")


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The health file.

    Attributes:
        state: `STARTING`, `READY` (every camera has a recent result, and every sink takes it), `DEGRADED` (something is missing),
            `SAFE` (after a crash loop), `STOPPING`, `STOPPED`.
        working: whether at least one camera has a recent result that at least one of its sinks took.
        why: of `DEGRADED` and `SAFE`, one line each.
        at_s: seconds since the boot of id `boot`.
        dropped_lines: lines of standard error that nobody read in time; the events' journal has them.
        golden_rounds: how often all golden frames were asked again and passed.
        sources: of each camera, whether it delivers, its ledger, what was the matter with the last frame skipped for a reason
            (`last_skipped`), its ages from capture to result and the engine's time (p50 and p99 over the last frames), the age of
            the last result, and its sinks.
    """

    state: str
    working: bool = False
    why: tuple[str, ...]
    pid: int
    boot: str
    at_s: float
    up_s: float
    unix: float
    bundle: str = ""
    sha256: str = ""
    serial: int = 0
    on_trial: bool = False
    engine: str = ""
    golden_rounds: int = 0
    temperature_c: float | None = None
    battery: float | None = None
    dropped_lines: int = 0
    events: dict[str, int] = {}
    sources: dict[str, dict[str, Any]] = {}


def read_health(path: Path) -> Health:
    """The health file of a service.

    Raises:
        SourceRefused: there is none, or it is something else.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Health)
    except OSError as error:
        raise SourceRefused(
            f"{path}: no health file: {error.strerror}; is the service running, and is this its 'file'?"
        ) from error
    except ValueError as error:
        raise SourceRefused(f"{path}: not a health file: {error}") from error


def verdict(health: Health) -> tuple[bool, str]:
    """Whether the service works, and one line about it."""
    if health.boot != boot_id():
        return False, "the health file is of an earlier boot; the service has not started since"
    age = since_boot() - health.at_s
    if age > STALE_S:
        return False, f"the health file is {age:.0f} s old; the service hangs or is gone"
    reasons = f" ({'; '.join(health.why)})" if health.why else ""
    return health.working and health.state in WORKING, f"{health.state}{reasons}"
