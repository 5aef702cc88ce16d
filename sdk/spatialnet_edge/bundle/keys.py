"""Ed25519 keys in PEM files: reading and generation.

A public key file may have notes before the key, as RFC 7468 (section 2) allows:

    expires: 2028-01-01
    may-revoke: yes
    -----BEGIN PUBLIC KEY-----

The notes are not signed. The owner of the trust store writes them to limit the key.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from spatialnet_edge.core.errors import MissingExtra, UsageError, first_line

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAX_KEY_BYTES = 4096
KEY_ID_DIGITS = 32
PEM_BEGIN = "-----BEGIN"
OTHERS_WRITE, OTHERS_READ = 0o022, 0o077


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key of a trust store, and its permissions.

    Attributes:
        expires: last day (UTC) on which bundles signed by this key can be installed; None: no limit.
        may_revoke: whether this key may sign a list of revoked keys (see `revocation.py`).
    """

    public: Ed25519PublicKey
    expires: date | None = None
    may_revoke: bool = False

    @property
    def id(self) -> str:
        return key_id(self.public)

    def expired(self, today: date | None = None) -> bool:
        """Whether the last day has passed, by this computer's clock. If the clock was never set, no key counts as expired."""
        return self.expires is not None and (today or datetime.now(timezone.utc).date()) > self.expires


def key_id(key: Ed25519PublicKey) -> str:
    """See `Signature.key`."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:KEY_ID_DIGITS]


def read_public(path: Path) -> TrustedKey:
    """Read an Ed25519 public key from PEM, with its notes.

    Raises:
        UsageError: not an Ed25519 public key, or an unknown note. For a private key the message says so.
    """
    keys = _cryptography()
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    raw = _read_key(path)
    if b"PRIVATE KEY" in raw:
        raise UsageError(f"{path}: this is a private key; it must never be on a payload computer; copy its .pub file instead")
    try:
        key = load_pem_public_key(raw)
    except ValueError as error:
        raise UsageError(f"{path}: not a public key in PEM: {first_line(error)}") from error
    if not isinstance(key, keys.Ed25519PublicKey):
        raise UsageError(f"{path}: a key of another kind; expected Ed25519, as 'spatialnet-edge keygen' makes it")
    return _with_notes(path, raw, key)


def _with_notes(path: Path, raw: bytes, key: Ed25519PublicKey) -> TrustedKey:
    notes = raw.decode("ascii", "replace").partition(PEM_BEGIN)[0]
    expires: date | None = None
    may_revoke = False
    for line in filter(None, map(str.strip, notes.splitlines())):
        name, _, value = (part.strip() for part in line.partition(":"))
        try:
            if name == "expires":
                expires = date.fromisoformat(value)
            elif name == "may-revoke" and value in ("yes", "no"):
                may_revoke = value == "yes"
            else:
                raise ValueError("expected 'expires: YYYY-MM-DD' or 'may-revoke: yes'")
        except ValueError as error:
            raise UsageError(f"{path}: the note {line!r} in front of the key cannot be read: {error}") from error
    return TrustedKey(key, expires, may_revoke)


def refuse_modes(path: Path, forbidden: int, danger: str) -> None:
    """Refuse a file or folder whose mode gives other users access.

    Args:
        forbidden: mode bits that must not be set.
        danger: consequence of these bits, for the message.

    Raises:
        UsageError: a forbidden bit is set; the message has the mode and the command that fixes it.
    """
    try:
        mode = path.stat().st_mode & 0o7777
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise UsageError(f"{str(path)!r}: cannot be read: {first_line(error)}") from error
    if mode & forbidden:
        raise UsageError(f"{path}: has mode {mode:04o}, so that {danger}; run: chmod {mode & ~forbidden:o} {path}")


def read_private(path: Path, passphrase: str = "") -> Ed25519PrivateKey:
    """Read an Ed25519 private key from PEM.

    Raises:
        UsageError: not an Ed25519 private key, a wrong or missing passphrase, or a file that other users may read.
    """
    refuse_modes(path, OTHERS_READ, "others may read this private key")
    keys = _cryptography()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read_key(path), passphrase.encode() or None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: this private key cannot be read: {first_line(error)}") from error
    if not isinstance(key, keys.Ed25519PrivateKey):
        raise UsageError(f"{path}: a key of another kind; expected Ed25519, as 'spatialnet-edge keygen' makes it")
    return key


def write_key_pair(
    folder: Path, name: str, passphrase: str = "", expires: date | None = None, may_revoke: bool = False
) -> tuple[Path, str]:
    """Generate `NAME.key` (readable by its owner only) and `NAME.pub`. Existing keys are never overwritten.

    Args:
        expires, may_revoke: notes of the public key; see `TrustedKey`.

    Returns:
        The public key's path and id.

    Raises:
        UsageError: a key of that name exists, or the folder cannot be written.
    """
    private = _cryptography().Ed25519PrivateKey.generate()
    from cryptography.hazmat.primitives import serialization as pem

    lock = pem.BestAvailableEncryption(passphrase.encode()) if passphrase else pem.NoEncryption()
    secret = private.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, lock)
    public = private.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
    notes = (f"expires: {expires.isoformat()}\n" if expires else "") + ("may-revoke: yes\n" if may_revoke else "")
    public = notes.encode() + public
    path = folder / f"{name}.pub"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for target, content, mode in ((folder / f"{name}.key", secret, 0o600), (path, public, 0o644)):
            with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
    except FileExistsError as error:
        raise UsageError(f"{error.filename}: a key of this name exists already; choose another --name or folder") from error
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from error
    return path, key_id(private.public_key())


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error


def _cryptography():
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError as error:
        raise MissingExtra("cryptography", "") from error
    return ed25519
