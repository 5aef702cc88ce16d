"""Who may say what flies: Ed25519 signatures over the raw manifest (RFC 8032), and the keys that this computer trusts.

The manifest names the hash of every other file, so one signature covers the whole bundle. A trust store is a folder of public keys
(`*.pub`, PEM). Ship two: one that signs every day, and one whose private half lies in a safe, for the day on which the first is
lost. A key may expire, and a list signed by the key from the safe revokes others (`keys.py`, `revocation.py`).

The store is the folder that `SPATIALNET_TRUST` names, else `/etc/spatialnet-edge/trust`. Where there is none, nothing can be
checked: bundles are opened as `unsigned` or `unchecked`, and `serve` and `install` refuse them unless they are told otherwise.
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
UNSIGNED = "use --allow-unsigned to run it all the same"


@dataclass(frozen=True, slots=True)
class Trust:
    """What this computer accepts.

    Attributes:
        keys: key id to public key.
        where: the folder they came from; empty when there is none.
        allow_unsigned: whether an absent signature, or one by an unknown key, will do. A wrong one never does.
        revoked: ids of keys that a signed list has revoked.
        problem: why the store itself cannot be relied on, such as a list that was changed or a folder that anybody may write;
            None when it can.
        installing: whether expired and revoked keys, and a store with a problem, are refused. What flies already was accepted
            once, and goes on flying.
    """

    keys: Mapping[str, TrustedKey] = field(default_factory=dict[str, TrustedKey])
    where: str = ""
    allow_unsigned: bool = False
    revoked: frozenset[str] = frozenset()
    problem: str | None = None
    installing: bool = False

    def at_install(self) -> Trust:
        """The same keys, with everything checked that must hold for something new."""
        return replace(self, installing=True)

    def check(self, bundle: str, manifest: bytes, signature: bytes | None) -> str:
        """Judge a manifest before anything of it is parsed.

        Returns:
            `signed by KEY` (with `, revoked` or `, expired` behind it where that is so), `unsigned`, or `unchecked` for a signature
            by a key that is not trusted here.

        Raises:
            BundleError: the signature is wrong or malformed; or absent or unknown, and that is not allowed; or, for something new,
                its key is revoked or expired.
        """
        if self.installing and self.problem is not None:
            raise BundleError(f"{bundle}: cannot be judged: {self.problem}")
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
                f"{bundle}: the signature by key {found.key} does not fit the manifest: it was changed after signing, or the "
                f"signature is forged; fetch the bundle again from where it was signed"
            )
        ended = "revoked" if found.key in self.revoked else "expired" if key.expired() else None
        if ended and self.installing:
            raise BundleError(f"{bundle}: signed by the key {found.key}, which is {ended}; sign it with a key that is not")
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
    """The keys of a trust store.

    Args:
        store: the folder; None for the one of the environment or of the system. A computer without either trusts nobody.

    Raises:
        UsageError: the folder was named and is not there, holds no key, or one that is no Ed25519 public key. A store that
            others may change, or whose list of revoked keys is not right, is opened with its `problem`.
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
            refuse_modes(path, OTHERS_WRITE, "others may change whom this computer trusts")
        revocations = stored_list(store, keys)
    except (UsageError, BundleError) as error:
        return Trust(keys, str(store), allow_unsigned, problem=str(error))
    revoked = frozenset(revocations.revoked) if revocations is not None else frozenset[str]()
    return Trust(keys, str(store), allow_unsigned, revoked)


def trust_here(allow_unsigned: bool = False) -> Trust:
    """What applies when nobody said anything: signatures are demanded as soon as this computer has a trust store."""
    trust = open_trust(allow_unsigned=allow_unsigned)
    return trust if trust.keys else Trust(allow_unsigned=True)
