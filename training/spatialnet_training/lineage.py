"""How a network was made, as its checkpoint records it."""

from __future__ import annotations

import shlex
import sys

from msgspec.structs import replace

from spatialnet_edge.bundle.manifest import Provenance


def command_line() -> str:
    """The command of this process, as a user types it."""
    return shlex.join(["spatialnet-edge", *sys.argv[1:]])


def continued(before: Provenance, step: str) -> Provenance:
    """The provenance after one more step on the same network.

    Args:
        step: what the step did, such as `recalibrated on held-out images`.
    """
    return replace(before, source=f"{before.source}; {step}", command=f"{before.command}; {command_line()}")
