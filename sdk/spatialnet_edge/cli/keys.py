"""`keygen`, `sign`, `verify`: who may say what flies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spatialnet_edge.bundle.keys import read_private, write_key_pair
from spatialnet_edge.bundle.reader import MANIFEST, SIGNATURE, contents, open_bundle
from spatialnet_edge.bundle.trust import STORE_VARIABLE, SYSTEM_STORE, Trust, open_trust, sign
from spatialnet_edge.bundle.writer import write_raw
from spatialnet_edge.core.errors import UsageError

PASSPHRASE_VARIABLE = "SPATIALNET_PASSPHRASE"


def keygen(
    folder: Annotated[Path, typer.Argument(help="Where the keys are put; never over existing ones.")],
    names: Annotated[
        str, typer.Option("--name", help="Names of the key pairs: one to sign with, one to keep in a safe.")
    ] = "operations,spare",
    protect: Annotated[bool, typer.Option(help="Ask for a passphrase; else the private keys are not encrypted.")] = False,
) -> None:
    """Make key pairs: NAME.key signs bundles on the ground, NAME.pub goes into the trust store of every payload."""
    console = Console()
    passphrase = typer.prompt("passphrase", hide_input=True, confirmation_prompt=True) if protect else ""
    for name in (each.strip() for each in names.split(",")):
        public, identity = write_key_pair(folder, name, passphrase)
        console.print(f"{public}  key {identity}", highlight=False, soft_wrap=True)
    console.print(
        f"Copy the .pub files to {SYSTEM_STORE} on the payload (or set {STORE_VARIABLE}); keep the .key files off it, "
        f"and the second one in a safe.",
        highlight=False,
    )


def sign_command(
    bundle: Annotated[Path, typer.Argument(help="A .snb file or a bundle directory; it is replaced by the signed one.")],
    key: Annotated[Path, typer.Option(help="A private key of 'spatialnet-edge keygen'.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the signed bundle here instead.")] = None,
) -> None:
    """Sign a bundle, after checking all of it."""
    opened = open_bundle(bundle, Trust(allow_unsigned=True))
    files = contents(opened)
    files[SIGNATURE] = sign(files[MANIFEST], read_private(key, passphrase_of(key)))
    write_raw(output or bundle, files)
    Console().print(f"{output or bundle}  signed, sha256 {opened.sha256}", highlight=False, soft_wrap=True)


def verify(
    bundle: Annotated[Path, typer.Argument(help="A .snb file or a bundle directory.")],
    trust: Annotated[Path | None, typer.Option(help="The trust store: a folder of public keys.")] = None,
    allow_unsigned: Annotated[bool, typer.Option("--allow-unsigned", help="An absent or unknown signature will do.")] = False,
) -> None:
    """Check signature, file set and every hash; exit status 78 says that the bundle is refused, and why."""
    keys = open_trust(trust, allow_unsigned)
    if not keys.keys and not allow_unsigned:
        raise UsageError(f"no trusted keys here; give --trust DIR, set {STORE_VARIABLE}, or put them into {SYSTEM_STORE}")
    opened = open_bundle(bundle, keys)
    Console().print(
        f"{bundle}: {opened.spec.name}, serial {opened.manifest.serial}, {opened.signature}, {len(opened.manifest.files)} files "
        f"verified, sha256 {opened.sha256}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def passphrase_of(key: Path) -> str:
    """Asked for when the key is encrypted, unless the environment has it."""
    if not (key.is_file() and b"ENCRYPTED" in key.read_bytes()[:100]):
        return ""
    return os.environ.get(PASSPHRASE_VARIABLE) or str(typer.prompt("passphrase", hide_input=True))
