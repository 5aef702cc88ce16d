"""The commands `keygen`, `sign`, `verify`, `revoke` and `distrust`: signatures of bundles and their keys."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from spatialnet_edge.bundle.keys import read_private, write_key_pair
from spatialnet_edge.bundle.reader import BUILTIN_PREFIX, MANIFEST, SIGNATURE, contents, open_bundle
from spatialnet_edge.bundle.revocation import FILE, RevocationList, sign_list, take_list
from spatialnet_edge.bundle.signature import sign
from spatialnet_edge.bundle.trust import STORE_VARIABLE, SYSTEM_STORE, Trust, open_trust
from spatialnet_edge.bundle.writer import write_raw
from spatialnet_edge.cli.printer import echo
from spatialnet_edge.core.atomic_io import write_durably
from spatialnet_edge.core.errors import UsageError

PASSPHRASE_VARIABLE = "SPATIALNET_PASSPHRASE"


def keygen(
    folder: Annotated[Path, typer.Argument(help="Folder for the keys. Existing keys are never overwritten.")],
    names: Annotated[
        str, typer.Option("--name", help="Names of the key pairs: the first signs, the last is kept in a safe.")
    ] = "operations,spare",
    protect: Annotated[bool, typer.Option(help="Ask for a passphrase. Without it, private keys are not encrypted.")] = False,
    expires: Annotated[
        str, typer.Option(help="YYYY-MM-DD: last day on which bundles signed by the first key can be installed.")
    ] = "",
) -> None:
    """Make key pairs: NAME.key signs bundles on the ground, NAME.pub goes into the trust store of every payload.

    The last of several keys may also revoke the others: keep it in a safe.
    """
    last_day = parse_day(expires) if expires else None
    passphrase = typer.prompt("passphrase", hide_input=True, confirmation_prompt=True) if protect else ""
    wanted = [each.strip() for each in names.split(",")]
    for place, name in enumerate(wanted):
        may_revoke = place > 0 and name == wanted[-1]
        public, identity = write_key_pair(folder, name, passphrase, None if place else last_day, may_revoke)
        echo(f"{public}  key {identity}{'  may revoke' if may_revoke else ''}")
    echo(
        f"Copy the .pub files to {SYSTEM_STORE} on the payload (or set {STORE_VARIABLE}). Never copy the .key files "
        f"to a payload, and keep {wanted[-1]}.key in a safe."
    )


def sign_command(
    bundle: Annotated[Path, typer.Argument(help="A .snb file or a bundle directory. The signed bundle replaces it.")],
    key: Annotated[Path, typer.Option(help="A private key made by 'spatialnet-edge keygen'.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the signed bundle here instead.")] = None,
) -> None:
    """Verify a bundle and sign it. Shipped models are installed files and need --output."""
    if output is None and str(bundle).startswith(BUILTIN_PREFIX):
        raise UsageError(
            f"{bundle} is part of this installation and cannot be changed; write the signed bundle to "
            "another file with -o FILE.snb"
        )
    opened = open_bundle(bundle, Trust(allow_unsigned=True))
    files = contents(opened)
    files[SIGNATURE] = sign(files[MANIFEST], read_private(key, passphrase_of(key)))
    write_raw(output or bundle, files)
    echo(f"{output or bundle}  signed, sha256 {opened.sha256}")


def verify(
    bundle: Annotated[Path, typer.Argument(help="A .snb file or a bundle directory.")],
    trust: Annotated[Path | None, typer.Option(help="The trust store: a folder of public keys.")] = None,
    allow_unsigned: Annotated[bool, typer.Option("--allow-unsigned", help="Accept an absent or unknown signature.")] = False,
) -> None:
    """Verify signature, file set and every hash. Exit status 78: the bundle is refused; the message gives the reason."""
    keys = open_trust(trust, allow_unsigned)
    if not keys.keys and not allow_unsigned:
        raise UsageError(f"no trusted keys found; give --trust DIR, set {STORE_VARIABLE}, or copy keys to {SYSTEM_STORE}")
    opened = open_bundle(bundle, keys.at_install())
    echo(
        f"{bundle}: {opened.spec.name}, serial {opened.manifest.serial}, {opened.signature}, {len(opened.manifest.files)} "
        f"files verified, sha256 {opened.sha256}"
    )


def revoke(
    revoked: Annotated[list[str], typer.Argument(help="Key ids, as printed by 'keygen', including those of earlier lists.")],
    key: Annotated[Path, typer.Option(help="The offline private key; its .pub contains 'may-revoke: yes'.")],
    serial: Annotated[int, typer.Option(help="A number higher than that of the previous list.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Output file for the list.")] = Path(FILE),
) -> None:
    """Sign a list of revoked keys. On payloads, `distrust` adds it to the trust store."""
    try:
        found = msgspec.convert({"serial": serial, "revoked": revoked}, RevocationList)
    except ValueError as error:
        raise UsageError(f"cannot make the list: {error}; a key id has 32 hexadecimal digits") from error
    write_durably(output, sign_list(found, read_private(key, passphrase_of(key))))
    echo(f"{output}: list {serial} revokes {', '.join(revoked)}")


def distrust(
    source: Annotated[Path, typer.Argument(help="A list made by 'revoke'.")],
    trust: Annotated[Path | None, typer.Option(help="The trust store: a folder of public keys.")] = None,
) -> None:
    """Add a signed list of revoked keys to the trust store. The active bundle stays active; new installs with these keys are
    refused."""
    store = open_trust(trust)
    if not store.keys:
        raise UsageError(f"no trusted keys found; give --trust DIR, set {STORE_VARIABLE}, or copy keys to {SYSTEM_STORE}")
    found = take_list(Path(store.where), source, store.keys)
    echo(f"{store.where}: list {found.serial} revokes {', '.join(found.revoked)}")


def parse_day(text: str) -> date:
    """Parse `YYYY-MM-DD`.

    Raises:
        UsageError: not a date.
    """
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--expires {text}: {error}; expected YYYY-MM-DD") from error


def passphrase_of(key: Path) -> str:
    """The passphrase of an encrypted key, from the environment or a prompt."""
    if not (key.is_file() and b"ENCRYPTED" in key.read_bytes()[:100]):
        return ""
    return os.environ.get(PASSPHRASE_VARIABLE) or str(typer.prompt("passphrase", hide_input=True))
