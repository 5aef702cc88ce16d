"""The state of the slots, stored twice with a checksum, so that a flipped bit or a lost file cannot allow an older release.

Each copy is one line: the sha256 of the JSON, a space, the JSON. The reader uses the newer of the valid copies. For each model
it uses the highest serial of both.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from spatialnet_edge.core.atomic_io import FULL, write_durably

COPIES = ("state.json", "state.copy.json")
DIGEST_DIGITS = 64


class State(msgspec.Struct, frozen=True):
    """The state of the slots.

    Attributes:
        tries: number of starts of the trial.
        accepted: model name to the highest serial that was marked good; lower serials are refused.
        generation: increases with every write.
        complete: False if both copies were once damaged or missing; `accepted` may then lack earlier serials.
    """

    tries: int = 0
    accepted: dict[str, int] = {}
    generation: int = 0
    complete: bool = True


def read_state(root: Path, used: bool) -> State:
    """Read the state below a root folder.

    Args:
        used: whether bundles were installed there before. If so, a state without a valid copy is incomplete.
    """
    copies = [state for name in COPIES if (state := _read(root / name)) is not None]
    if not copies:
        return State(complete=not used)
    highest: dict[str, int] = {}
    for copy in copies:
        for model, serial in copy.accepted.items():
            highest[model] = max(serial, highest.get(model, 0))
    newest = max(copies, key=lambda copy: copy.generation)
    return msgspec.structs.replace(newest, accepted=highest)


def write_state(root: Path, state: State) -> None:
    """Write both copies, one after the other. If the disk is full for the second one, the next write updates it.

    Raises:
        OSError: the first copy cannot be written; both copies are unchanged.
    """
    body = msgspec.json.encode(msgspec.structs.replace(state, generation=state.generation + 1))
    line = hashlib.sha256(body).hexdigest().encode() + b" " + body + b"\n"
    write_durably(root / COPIES[0], line)
    try:
        write_durably(root / COPIES[1], line)
    except OSError as error:
        if error.errno not in FULL:
            raise


def _read(path: Path) -> State | None:
    """Read one copy; None if it is missing or damaged. Earlier versions wrote the JSON without a checksum."""
    try:
        raw = path.read_bytes()
        if raw.startswith(b"{"):
            return msgspec.json.decode(raw, type=State)
        digest, _, body = raw.removesuffix(b"\n").partition(b" ")
        if len(digest) != DIGEST_DIGITS or hashlib.sha256(body).hexdigest().encode() != digest:
            return None
        return msgspec.json.decode(body, type=State)
    except (OSError, ValueError):
        return None
