"""Ed25519 signatures over raw bytes (RFC 8032), and the JSON that carries them."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import msgspec

from spatialnet_edge.bundle.keys import KEY_ID_DIGITS, key_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KeyId: TypeAlias = Annotated[str, msgspec.Meta(pattern=f"^[0-9a-f]{{{KEY_ID_DIGITS}}}$")]


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `manifest.sig`.

    Attributes:
        key: the first 32 hexadecimal digits of the sha256 of the public key's 32 bytes.
        signature: 64 bytes, base64, over the raw bytes of `manifest.json`.
    """

    algorithm: Literal["ed25519"]
    key: KeyId
    signature: Annotated[str, msgspec.Meta(max_length=200)]


def sign(content: bytes, key: Ed25519PrivateKey) -> bytes:
    """Sign the raw bytes of a manifest. Returns the content of `manifest.sig`."""
    signed = base64.b64encode(key.sign(content)).decode()
    return msgspec.json.encode(Signature("ed25519", key_id(key.public_key()), signed)) + b"\n"


def verify(content: bytes, signature: Signature, key: Ed25519PublicKey) -> bool:
    """Whether a signature is valid for the content."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(base64.b64decode(signature.signature, validate=True), content)
    except (InvalidSignature, ValueError):
        return False
    return True
