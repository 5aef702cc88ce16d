"""Which bundles may replace the active one: no older release, and no other model."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from spatialnet_edge.bundle.reader import Bundle
from spatialnet_edge.bundle.slot_state import COPIES, State
from spatialnet_edge.core.errors import BundleError

FORMER_NAMES = {"spatialnet-s": "spatialnet-student-2m", "spatialnet-m": "spatialnet-student-160"}
"""Shipped models, and their names in bundles of earlier releases. Serials continue under the new name."""


def refuse_replay(bundle: Bundle, state: State, root: Path) -> None:
    """Refuse a bundle with a lower serial than an accepted one: an attacker may replay an old signed release.

    Args:
        root: the folder of the slots, for the message.

    Raises:
        BundleError: the serial is too low (with both serials), or the highest serials are unknown.
    """
    if not state.complete:
        raise BundleError(
            f"{root}: both copies of the state ({', '.join(COPIES)}) are damaged or missing, so the highest "
            "serials are unknown; give --rebuild-state to read them from the installed bundles"
        )
    names = (bundle.spec.name, FORMER_NAMES.get(bundle.spec.name))
    least = max(state.accepted.get(name, 0) for name in names if name is not None)
    if bundle.manifest.serial < least:
        raise BundleError(
            f"{bundle.path}: serial {bundle.manifest.serial} of '{bundle.spec.name}' is older than {least}, which was "
            "accepted before; build it again with a higher --serial, or go back with 'spatialnet-edge rollback'"
        )


def refuse_other_model(bundle: Bundle, active: Collection[str], compatible: Collection[str] = ()) -> None:
    """Refuse a bundle with another model name than the active one: a valid signature does not prove that the model is meant for
    this payload.

    A shipped model may replace itself under its former name.

    Args:
        active: see `Slots.models`.
        compatible: other accepted names.

    Raises:
        BundleError: with both names.
    """
    name = bundle.spec.name
    if active and {name, FORMER_NAMES.get(name)}.isdisjoint(active) and name not in compatible:
        raise BundleError(
            f"{bundle.path}: holds the model '{name}'; the active model is '{', '.join(sorted(active))}'; if it may "
            "be replaced, list the new name under 'compatible' in the configuration, and install with --config"
        )
