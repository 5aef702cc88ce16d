"""Trust: Ed25519 signatures over the raw manifest (RFC 8032), and the keys that this computer trusts.

The manifest lists the hash of every other file, so one signature covers the complete bundle. A trust store is a folder of
public keys (`*.pub`, PEM). Install two: one for daily signing, and one whose private key is kept offline in case the first is
lost. Keys can expire, and the offline key can sign a list of revoked keys (`keys.py`, `revocation.py`).

The store is the folder in `SPATIALNET_TRUST`, or else `/etc/spatialnet-edge/trust`. Without a store nothing can be verified:
bundles are opened as `unsigned` or `unchecked`, and `serve` and `install` refuse them unless unsigned bundles are allowed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from spatialnet_edge.bundle.keys import OTHERS_WRITE, TrustedKey, read_public, refuse_modes
from spatialnet_edge.bundle.revocation import stored_list
from spatialnet_edge.bundle.signature import Signature, verify
from spatialnet_edge.core.errors import BundleError, UsageError

STORE_VARIABLE = "SPATIALNET_TRUST"
SYSTEM_STORE = Path("/etc/spatialnet-edge/trust")
MAX_SIGNATURE_BYTES = 1024
UNSIGNED = "use --allow-unsigned to run it anyway"


@dataclass(frozen=True, slots=True)
class Trust:
    """The signatures that this computer accepts.

    Attributes:
        keys: key id to public key.
        where: the trust store's folder; empty if there is none.
        allow_unsigned: whether an absent signature, or one by an unknown key, is accepted. A wrong signature never is.
        revoked: ids of keys on the signed revocation list.
        problem: why the store is not reliable, such as a changed list or a folder that other users may write; None if it is.
        installing: whether expired and revoked keys, and an unreliable store, are refused. This does not apply to an active
            bundle, which was accepted before.
    """

    keys: Mapping[str, TrustedKey] = field(default_factory=dict[str, TrustedKey])
    where: str = ""
    allow_unsigned: bool = False
    revoked: frozenset[str] = frozenset()
    problem: str | None = None
    installing: bool = False

    def at_install(self) -> Trust:
        """The same trust with the additional checks for a new bundle."""
        return replace(self, installing=True)

    def check(self, bundle: str, manifest: bytes, signature: bytes | None) -> str:
        """Verify the signature of a manifest before the manifest is parsed.

        Returns:
            `signed by KEY` (followed by `, revoked` or `, expired` if so), `unsigned`, or `unchecked` for a signature by an
                unknown key.

        Raises:
            BundleError: the signature is wrong or malformed; it is absent or unknown and that is not allowed; or, for a new
                bundle, its key is revoked or expired.
        """
        if self.installing and self.problem is not None:
            raise BundleError(f"{bundle}: cannot be verified: {self.problem}")
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
        if not verify(manifest, found, key.public):
            raise BundleError(
                f"{bundle}: the signature by key {found.key} does not match the manifest: the manifest was changed "
                "after signing, or the signature is forged; copy the signed bundle again"
            )
        ended = "revoked" if found.key in self.revoked else "expired" if key.expired() else None
        if ended and self.installing:
            raise BundleError(f"{bundle}: signed by the key {found.key}, which is {ended}; sign it with a valid key")
        return f"signed by {found.key}" + (f", {ended}" if ended else "")

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
    """Read the keys of a trust store.

    Args:
        store: the folder; None: that of the environment or the system. Without either, no key is trusted.

    Raises:
        UsageError: the given folder does not exist, has no key, or has a file that is not an Ed25519 public key. A store that
            other users may change, or with an invalid revocation list, is opened with its `problem`.
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
    keys = {key.id: key for key in map(read_public, files)}
    try:
        for path in (store, *files):
            refuse_modes(path, OTHERS_WRITE, "other users may change the trusted keys")
        revocations = stored_list(store, keys)
    except (UsageError, BundleError) as error:
        return Trust(keys, str(store), allow_unsigned, problem=str(error))
    revoked = frozenset(revocations.revoked) if revocations is not None else frozenset[str]()
    return Trust(keys, str(store), allow_unsigned, revoked)


def trust_here(allow_unsigned: bool = False) -> Trust:
    """The default trust: signatures are required if this computer has a trust store."""
    trust = open_trust(allow_unsigned=allow_unsigned)
    return trust if trust.keys else Trust(allow_unsigned=True)
