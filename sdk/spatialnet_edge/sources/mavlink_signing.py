"""Signatures of MAVLink 2 (https://mavlink.io/en/guide/message_signing.html), through pymavlink.

The key is 32 bytes, which both ends share. Ground stations make it as the SHA-256 of a passphrase; its file holds the key as 64
hexadecimal digits:

    (umask 077; printf %s 'PASSPHRASE' | sha256sum > mavlink.key)
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, final

from spatialnet_edge.bundle.keys import OTHERS_READ, refuse_modes
from spatialnet_edge.core.errors import UsageError

SIGNATURE_BYTES = 13
"""What a signature adds to a message."""
KEY = re.compile(r"[0-9a-fA-F]{64}\b")
MAX_KEY_FILE_BYTES = 4096
EPOCH_UNIX = 1420070400
"""Time stamps of signatures count from 2015-01-01 UTC, in units of 10 µs."""
TICKS_A_SECOND = 100_000
REFUSED = "Invalid signature"


def read_signing_key(path: str) -> bytes:
    """The key in a file: 64 hexadecimal digits at its beginning.

    Raises:
        UsageError: the file cannot be read, holds something else, or others may read it.
    """
    refuse_modes(Path(path), OTHERS_READ, "others may read this signing key")
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            found = KEY.match(file.read(MAX_KEY_FILE_BYTES))
    except OSError as error:
        raise UsageError(f"key_file={path}: cannot be read: {error.strerror}") from error
    if found is None:
        raise UsageError(
            f"key_file={path}: no signing key; expected 64 hexadecimal digits, as \"printf %s 'PASSPHRASE' | sha256sum\" prints"
        )
    return bytes.fromhex(found.group())


def ticks_now() -> int:
    """The time stamp of this moment, by the clock of this computer."""
    return max(0, int((time.time() - EPOCH_UNIX) * TICKS_A_SECOND))


@final
class SignedLink:
    """A link of pymavlink that signs what it sends, and refuses what has no right signature.

    Two things are added to what pymavlink does. A forged message cannot move the time stamp that the next right one must exceed.
    And what is sent carries the time of its moment, so that a receiver that starts later accepts it.

    Args:
        link: as `mavutil.mavlink_connection` opens it; it must speak MAVLink 2.
        key: 32 bytes.
    """

    def __init__(self, link: Any, key: bytes) -> None:
        link.setup_signing(key, sign_outgoing=True)
        self._signing = link.mav.signing
        self._seen: dict[tuple[int, int, int], int] = {}
        self._refused = 0

    def stamp(self) -> None:
        """Call it before a message is packed."""
        self._signing.timestamp = max(self._signing.timestamp, ticks_now())

    def after_receive(self) -> None:
        """Call it after each message that was received: a refused one leaves no trace in the time stamps."""
        if self._signing.badsig_count == self._refused:
            self._seen = dict(self._signing.stream_timestamps)
        else:
            self._refused = self._signing.badsig_count
            self._signing.stream_timestamps = dict(self._seen)


def is_refused(message: Any) -> bool:
    """Whether a received message had no signature, or a wrong one; pymavlink gives it as bad data."""
    return message.get_type() == "BAD_DATA" and message.reason == REFUSED
