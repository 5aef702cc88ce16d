"""Who may say what flies: Ed25519 signatures over the raw manifest (RFC 8032), and the keys that this computer trusts.

The manifest names the hash of every other file, so one signature covers the whole bundle. A trust store is a folder of public keys
(`*.pub`, PEM). Ship two: one that signs every day, and one whose private half lies in a safe, for the day on which the first is
lost.

The store is the folder that `SPATIALNET_TRUST` names, else `/etc/spatialnet-edge/trust`. Where there is none, nothing can be
checked: bundles are opened as `unsigned` or `unchecked`, and `serve` and `install` refuse them unless they are told otherwise.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from spatialnet_edge.core.errors import BundleError, MissingExtra, UsageError, first_line

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

STORE_VARIABLE = "SPATIALNET_TRUST"
SYSTEM_STORE = Path("/etc/spatialnet-edge/trust")
MAX_SIGNATURE_BYTES = 1024
MAX_KEY_BYTES = 4096
KEY_ID_DIGITS = 32
UNSIGNED = "use --allow-unsigned to run it all the same"


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`manifest.sig`.

    Attributes:
        key: the first 32 hexadecimal digits of the sha256 of the public key's 32 bytes.
        signature: 64 bytes, base64, over the raw bytes of `manifest.json`.
    """

    algorithm: Literal["ed25519"]
    key: str
    signature: str


@dataclass(frozen=True, slots=True)
class Trust:
    """What this computer accepts.

    Attributes:
        keys: key id to public key.
        where: the folder they came from; empty when there is none.
        allow_unsigned: whether an absent signature, or one by an unknown key, will do. A wrong one never does.
    """

    keys: Mapping[str, Ed25519PublicKey] = field(default_factory=dict[str, "Ed25519PublicKey"])
    where: str = ""
    allow_unsigned: bool = False

    def check(self, bundle: str, manifest: bytes, signature: bytes | None) -> str:
        """Judge a manifest before anything of it is parsed.

        Returns:
            `signed by KEY`, `unsigned`, or `unchecked` for a signature by a key that is not trusted here.

        Raises:
            BundleError: the signature is wrong or malformed; or absent or unknown, and that is not allowed.
        """
        if signature is None:
            if self.allow_unsigned:
                return "unsigned"
            raise BundleError(f"{bundle}: is not signed, and {self._expectation()}; sign it, or {UNSIGNED}")
        found = _decode(bundle, signature)
        key = self.keys.get(found.key)
        if key is None:
            if self.allow_unsigned:
                return "unchecked"
            raise BundleError(f"{bundle}: signed by the unknown key {found.key}; {self._expectation()}; {UNSIGNED}")
        from cryptography.exceptions import InvalidSignature

        try:
            key.verify(base64.b64decode(found.signature, validate=True), manifest)
        except (InvalidSignature, ValueError) as error:
            raise BundleError(
                f"{bundle}: the signature by key {found.key} does not fit the manifest: it was changed after signing, or the "
                f"signature is forged; fetch the bundle again from where it was signed"
            ) from error
        return f"signed by {found.key}"

    def _expectation(self) -> str:
        if not self.keys:
            return f"this computer has no trusted keys ({STORE_VARIABLE} or {SYSTEM_STORE})"
        return f"the trusted keys in {self.where} are {', '.join(sorted(self.keys))}"


def _decode(bundle: str, raw: bytes) -> Signature:
    try:
        if len(raw) > MAX_SIGNATURE_BYTES:
            raise ValueError(f"more than {MAX_SIGNATURE_BYTES} bytes")
        return msgspec.json.decode(raw, type=Signature)
    except ValueError as error:
        raise BundleError(f"{bundle}: manifest.sig cannot be read: {error}; sign the bundle again") from error


def open_trust(store: Path | None = None, allow_unsigned: bool = False) -> Trust:
    """The keys of a trust store.

    Args:
        store: the folder; None for the one of the environment or of the system. A computer without either trusts nobody.

    Raises:
        UsageError: the folder was named and is not there, holds no key, or one that is no Ed25519 public key.
    """
    named = os.environ.get(STORE_VARIABLE)
    if store is None and named:
        store = Path(named)
    if store is None and not SYSTEM_STORE.is_dir():
        return Trust(allow_unsigned=allow_unsigned)
    store = store or SYSTEM_STORE
    files = sorted(store.glob("*.pub"))
    if not files:
        raise UsageError(f"{store}: no public key (*.pub) in this trust store; make keys with 'spatialnet-edge keygen'")
    keys = [read_public(path) for path in files]
    return Trust({key_id(key): key for key in keys}, str(store), allow_unsigned)


def trust_here(allow_unsigned: bool = False) -> Trust:
    """What applies when nobody said anything: signatures are demanded as soon as this computer has a trust store."""
    trust = open_trust(allow_unsigned=allow_unsigned)
    return trust if trust.keys else Trust(allow_unsigned=True)


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


def sign(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """The content of `manifest.sig` for the raw bytes of a manifest."""
    signed = base64.b64encode(key.sign(manifest)).decode()
    return msgspec.json.encode(Signature("ed25519", key_id(key.public_key()), signed)) + b"\n"


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
