"""`keygen`, `sign`, `verify`: who may say what flies."""

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
    folder: Annotated[Path, typer.Argument(help="Where the keys are put; never over existing ones.")],
    names: Annotated[
        str, typer.Option("--name", help="Names of the key pairs: one to sign with, one to keep in a safe.")
    ] = "operations,spare",
    protect: Annotated[bool, typer.Option(help="Ask for a passphrase; else the private keys are not encrypted.")] = False,
    expires: Annotated[
        str, typer.Option(help="YYYY-MM-DD: the last day on which bundles that the first key signed are installed.")
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
        f"Copy the .pub files to {SYSTEM_STORE} on the payload (or set {STORE_VARIABLE}); keep the .key files off it, "
        f"and {wanted[-1]}.key in a safe."
    )


def sign_command(
    bundle: Annotated[Path, typer.Argument(help="A .snb file or a bundle directory; it is replaced by the signed one.")],
    key: Annotated[Path, typer.Option(help="A private key of 'spatialnet-edge keygen'.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the signed bundle here instead.")] = None,
) -> None:
    """Sign a bundle, after checking all of it.

    Raises:
        UsageError: a shipped model without `--output`: it cannot be replaced where it lies.
    """
    if output is None and str(bundle).startswith(BUILTIN_PREFIX):
        raise UsageError(f"{bundle} is shipped with this version and stays as it is; name the signed bundle with -o FILE.snb")
    opened = open_bundle(bundle, Trust(allow_unsigned=True))
    files = contents(opened)
    files[SIGNATURE] = sign(files[MANIFEST], read_private(key, passphrase_of(key)))
    write_raw(output or bundle, files)
    echo(f"{output or bundle}  signed, sha256 {opened.sha256}")


def verify(
    bundle: Annotated[Path, typer.Argument(help="A .snb file or a bundle directory.")],
    trust: Annotated[Path | None, typer.Option(help="The trust store: a folder of public keys.")] = None,
    allow_unsigned: Annotated[bool, typer.Option("--allow-unsigned", help="An absent or unknown signature will do.")] = False,
) -> None:
    """Check signature, file set and every hash; exit status 78 says that the bundle is refused, and why."""
    keys = open_trust(trust, allow_unsigned)
    if not keys.keys and not allow_unsigned:
        raise UsageError(f"no trusted keys here; give --trust DIR, set {STORE_VARIABLE}, or put them into {SYSTEM_STORE}")
    opened = open_bundle(bundle, keys.at_install())
    echo(
        f"{bundle}: {opened.spec.name}, serial {opened.manifest.serial}, {opened.signature}, {len(opened.manifest.files)} files "
        f"verified, sha256 {opened.sha256}"
    )


def revoke(
    revoked: Annotated[list[str], typer.Argument(help="Key ids, as 'keygen' prints them; those of earlier lists too.")],
    key: Annotated[Path, typer.Option(help="The private key from the safe; its .pub says 'may-revoke: yes'.")],
    serial: Annotated[int, typer.Option(help="Higher than that of the list before.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the list is written.")] = Path(FILE),
) -> None:
    """Sign a list of keys that payloads must not trust any more; 'distrust' takes it in there."""
    try:
        found = msgspec.convert({"serial": serial, "revoked": revoked}, RevocationList)
    except ValueError as error:
        raise UsageError(f"the list cannot be made: {error}; a key id has 32 hexadecimal digits") from error
    write_durably(output, sign_list(found, read_private(key, passphrase_of(key))))
    echo(f"{output}: list {serial} revokes {', '.join(revoked)}")


def distrust(
    source: Annotated[Path, typer.Argument(help="A list that 'revoke' made.")],
    trust: Annotated[Path | None, typer.Option(help="The trust store: a folder of public keys.")] = None,
) -> None:
    """Take a signed list of revoked keys into the trust store. What flies goes on flying; installs are refused."""
    store = open_trust(trust)
    if not store.keys:
        raise UsageError(f"no trusted keys here; give --trust DIR, set {STORE_VARIABLE}, or put them into {SYSTEM_STORE}")
    found = take_list(Path(store.where), source, store.keys)
    echo(f"{store.where}: list {found.serial} revokes {', '.join(found.revoked)}")


def parse_day(text: str) -> date:
    """Raises UsageError for what is no date."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--expires {text}: {error}; expected YYYY-MM-DD") from error


def passphrase_of(key: Path) -> str:
    """Asked for when the key is encrypted, unless the environment has it."""
    if not (key.is_file() and b"ENCRYPTED" in key.read_bytes()[:100]):
        return ""
    return os.environ.get(PASSPHRASE_VARIABLE) or str(typer.prompt("passphrase", hide_input=True))
