"""Ed25519 keys in PEM: read them, make them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from spatialnet_edge.core.errors import MissingExtra, UsageError, first_line

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAX_KEY_BYTES = 4096
KEY_ID_DIGITS = 32


def key_id(key: Ed25519PublicKey) -> str:
    """See `Signature.key`."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:KEY_ID_DIGITS]


def read_public(path: Path) -> Ed25519PublicKey:
    """An Ed25519 public key from PEM.

    Raises:
        UsageError: it is something else; a private key in a trust store is named as such.
    """
    keys = _cryptography()
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    raw = _read_key(path)
    if b"PRIVATE KEY" in raw:
        raise UsageError(f"{path}: this is a private key; it must never be on a payload computer; put its .pub there")
    try:
        key = load_pem_public_key(raw)
    except ValueError as error:
        raise UsageError(f"{path}: not a public key in PEM: {first_line(error)}") from error
    if not isinstance(key, keys.Ed25519PublicKey):
        raise UsageError(f"{path}: a key of another kind; expected Ed25519, as 'spatialnet-edge keygen' makes it")
    return key


def read_private(path: Path, passphrase: str = "") -> Ed25519PrivateKey:
    """An Ed25519 private key from PEM.

    Raises:
        UsageError: it is something else, or the passphrase is wrong or missing.
    """
    keys = _cryptography()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read_key(path), passphrase.encode() or None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: this private key cannot be read: {first_line(error)}") from error
    if not isinstance(key, keys.Ed25519PrivateKey):
        raise UsageError(f"{path}: a key of another kind; expected Ed25519, as 'spatialnet-edge keygen' makes it")
    return key


def write_key_pair(folder: Path, name: str, passphrase: str = "") -> tuple[Path, str]:
    """Make `NAME.key` (readable by its owner alone) and `NAME.pub`; never over an existing one.

    Returns:
        The public key's path and id.

    Raises:
        UsageError: a key of that name is there already, or the folder cannot be written.
    """
    private = _cryptography().Ed25519PrivateKey.generate()
    from cryptography.hazmat.primitives import serialization as pem

    lock = pem.BestAvailableEncryption(passphrase.encode()) if passphrase else pem.NoEncryption()
    secret = private.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, lock)
    public = private.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
    path = folder / f"{name}.pub"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for target, content, mode in ((folder / f"{name}.key", secret, 0o600), (path, public, 0o644)):
            with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
    except FileExistsError as error:
        raise UsageError(f"{error.filename}: a key of this name is there already; choose another --name or folder") from error
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
