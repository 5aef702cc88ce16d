"""The health file of a service, for people, supervisors and the ground."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from spatialnet_edge.core.clock import boot_id, since_boot
from spatialnet_edge.core.errors import SourceRefused

STALE_S = 10.0
WORKING = ("READY", "DEGRADED", "SAFE")


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the health file.

    Attributes:
        state: `STARTING`, `READY` (every camera has a recent result, and every sink accepts it), `DEGRADED` (see `why`),
            `SAFE` (after a crash loop), `STOPPING`, `STOPPED`.
        working: whether at least one camera has a recent result that at least one of its sinks accepted.
        why: the reasons for `DEGRADED` or `SAFE`, one line each.
        at_s: seconds since the boot with the id `boot`.
        dropped_lines: lines dropped from standard error; the events journal has them.
        golden_rounds: number of complete golden rounds that passed.
        sources: per camera: whether it delivers, its frame statistics, the detail of the last skipped frame (`last_skipped`),
            result ages and engine times (p50 and p99 over the last frames), the age of the last result, and its sinks.
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
    """Read the health file of a service.

    Raises:
        SourceRefused: it does not exist, or is not a health file.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Health)
    except OSError as error:
        raise SourceRefused(
            f"{path}: no health file: {error.strerror}; check that the service is running and that this is the 'file' "
            "of its configuration"
        ) from error
    except ValueError as error:
        raise SourceRefused(f"{path}: not a health file: {error}") from error


def verdict(health: Health) -> tuple[bool, str]:
    """Whether the service works, and one line with the state and the reasons."""
    if health.boot != boot_id():
        return False, "the health file is of an earlier boot; the service has not started since"
    age = since_boot() - health.at_s
    if age > STALE_S:
        return False, f"the health file is {age:.0f} s old; the service hangs or has ended"
    reasons = f" ({'; '.join(health.why)})" if health.why else ""
    return health.working and health.state in WORKING, f"{health.state}{reasons}"
