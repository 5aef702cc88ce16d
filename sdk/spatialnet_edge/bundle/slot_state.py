"""What the slots remember, in two copies with a checksum: a flipped bit or a lost file must not let an old release in again.

Each copy is one line: the sha256 of the JSON that follows, a space, the JSON. A reader takes the newer of the copies that are
whole, and of every model the highest serial that any of them has.
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
        tries: how often the trial was started.
        accepted: model name to the highest serial that was ever marked good: nothing older is installed again.
        generation: rises with every write.
        complete: False when both copies were once damaged or missing, so that `accepted` may lack what was there before.
    """

    tries: int = 0
    accepted: dict[str, int] = {}
    generation: int = 0
    complete: bool = True


def read_state(root: Path, used: bool) -> State:
    """The state below a root.

    Args:
        used: whether bundles were installed here before; then a state without a readable copy is not complete.
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
    """Write both copies, one after the other. A full disk may refuse the second one; the next write brings it up to date.

    Raises:
        OSError: the first copy cannot be written; both are as they were before.
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
    """One copy; None when it is missing or damaged. Versions before the checksum wrote the JSON alone."""
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
