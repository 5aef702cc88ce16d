"""Revoked keys: a list, signed by an offline key, that is uploaded to payloads.

The list is one file, `revoked.json`, in the trust store: the text of the list, and a signature over that text by a key that
may revoke (see `keys.py`). Each list has a higher serial than the previous one and includes all of its keys: a revocation
cannot be undone.

A revoked key blocks installs and trials. An active bundle stays active until it is replaced or rolled back: a list must not
leave a payload without a model.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from spatialnet_edge.bundle.keys import TrustedKey
from spatialnet_edge.bundle.signature import KeyId, Signature, sign, verify
from spatialnet_edge.core.atomic_io import write_durably
from spatialnet_edge.core.errors import BundleError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FILE = "revoked.json"
MAX_LIST_BYTES = 64 << 10


class RevocationList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The revoked keys.

    Attributes:
        serial: increases with every list.
        revoked: key ids, see `Signature.key`.
    """

    serial: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    revoked: Annotated[tuple[KeyId, ...], msgspec.Meta(min_length=1, max_length=1000)]


class SignedList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `revoked.json`.

    Attributes:
        list: base64 of the JSON of a `RevocationList`.
        signature: over the bytes of that JSON.
    """

    list: str
    signature: Signature


def sign_list(found: RevocationList, key: Ed25519PrivateKey) -> bytes:
    """Sign a list. Returns the content of `revoked.json`."""
    raw = msgspec.json.encode(found)
    signature = msgspec.json.decode(sign(raw, key), type=Signature)
    return msgspec.json.encode(SignedList(base64.b64encode(raw).decode(), signature)) + b"\n"


def read_list(where: str, content: bytes, keys: Mapping[str, TrustedKey]) -> RevocationList:
    """Verify a list with the keys of a trust store, then parse it.

    Raises:
        BundleError: not a list, or not signed by a key that may revoke.
    """
    try:
        if len(content) > MAX_LIST_BYTES:
            raise ValueError(f"more than {MAX_LIST_BYTES} bytes")
        signed = msgspec.json.decode(content, type=SignedList)
        raw = base64.b64decode(signed.list, validate=True)
    except ValueError as error:
        raise BundleError(f"{where}: is not a signed list of revoked keys: {error}; copy it again") from error
    key = keys.get(signed.signature.key)
    if key is None or not key.may_revoke:
        raise BundleError(
            f"{where}: is signed by {signed.signature.key}, which may not revoke keys; sign it with a key whose .pub "
            "in the trust store contains 'may-revoke: yes'"
        )
    if not verify(raw, signed.signature, key.public):
        raise BundleError(f"{where}: the signature does not match the list: the list was changed after signing; copy it again")
    try:
        return msgspec.json.decode(raw, type=RevocationList)
    except ValueError as error:
        raise BundleError(f"{where}: the list cannot be read: {error}") from error


def stored_list(store: Path, keys: Mapping[str, TrustedKey]) -> RevocationList | None:
    """The list of a trust store; None if there is none.

    Raises:
        BundleError: as `read_list`.
    """
    path = store / FILE
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LIST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    return read_list(str(path), content, keys)


def take_list(store: Path, source: Path, keys: Mapping[str, TrustedKey]) -> RevocationList:
    """Add a newer list to a trust store.

    Raises:
        BundleError: the list is refused (see `read_list`), is older than the present one, omits a revoked key, or is signed by
            a revoked key; or the store cannot be written.
    """
    try:
        with source.open("rb") as file:
            content = file.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{source}: cannot be read: {error.strerror}") from error
    found = read_list(str(source), content, keys)
    try:
        before = stored_list(store, keys)
    except BundleError:  # a damaged list may be replaced
        before = None
    if before is not None:
        signer = msgspec.json.decode(content, type=SignedList).signature.key
        if signer in before.revoked:
            raise BundleError(f"{source}: is signed by {signer}, which was revoked by list {before.serial}")
        if found.serial < before.serial or not set(before.revoked) <= set(found.revoked):
            raise BundleError(
                f"{source}: list {found.serial} must have a higher serial than {before.serial} and name all keys of that list"
            )
    try:
        write_durably(store / FILE, content)
    except OSError as error:
        raise BundleError(f"{store}: cannot be written: {error.strerror}") from error
    return found
