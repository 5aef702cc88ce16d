"""Who may say what flies: Ed25519 signatures over the raw manifest (RFC 8032), and the keys that this computer trusts.

The manifest names the hash of every other file, so one signature covers the whole bundle. A trust store is a folder of public keys
(`*.pub`, PEM). Ship two: one that signs every day, and one whose private half lies in a safe, for the day on which the first is
lost.

The store is the folder that `SPATIALNET_TRUST` names, else `/etc/spatialnet-edge/trust`. Where there is none, nothing can be
checked: bundles are opened as `unsigned` or `unchecked`, and `serve` and `install` refuse them unless they are told otherwise.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from spatialnet_edge.bundle.keys import key_id, read_public
from spatialnet_edge.core.errors import BundleError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

STORE_VARIABLE = "SPATIALNET_TRUST"
SYSTEM_STORE = Path("/etc/spatialnet-edge/trust")
MAX_SIGNATURE_BYTES = 1024
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


def sign(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """The content of `manifest.sig` for the raw bytes of a manifest."""
    signed = base64.b64encode(key.sign(manifest)).decode()
    return msgspec.json.encode(Signature("ed25519", key_id(key.public_key()), signed)) + b"\n"


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
