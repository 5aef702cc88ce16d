"""`spatialnet-edge inspect BUNDLE`: print heads, labels, sizes, hashes, provenance and the build report."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from spatialnet_edge.bundle.manifest import Manifest, encode_manifest, manifest_schema
from spatialnet_edge.bundle.reader import Bundle, open_bundle
from spatialnet_edge.bundle.trust import open_trust
from spatialnet_edge.cli.json_file import json_option, write_text
from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.output_paths import STANDARD_OUTPUT
from spatialnet_edge.core.spec import Head, Multiclass, Multilabel, Regression, gsd_text

GSD_CAPTION = "m per pixel: metres on the ground per pixel of the model's input in the training images"


def inspect(
    bundle: Annotated[str, typer.Argument(help="A .snb file, a bundle directory, or builtin:spatialnet-s.")] = "",
    json: Annotated[Path | None, json_option("the verified manifest")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the manifest's JSON Schema and stop.")] = False,
) -> None:
    """Show the contents of a bundle. Every file's size and hash is verified first."""
    if schema:
        typer.echo(jsonlib.dumps(manifest_schema(), indent=1))
        return
    if not bundle:
        raise UsageError("name a bundle to inspect, or give --schema")
    opened = open_bundle(bundle, open_trust(allow_unsigned=True))
    write_text(json, encode_manifest(opened.manifest).decode())
    if json == STANDARD_OUTPUT:
        return
    console = printer()
    console.print(heading(opened))
    console.print(heads(opened.manifest))
    console.print(files(opened.manifest))
    if opened.manifest.build is not None:
        console.print(candidates(opened.manifest))
        console.print(f"why: {opened.manifest.build.reason}")


def heading(bundle: Bundle) -> str:
    manifest, given = bundle.manifest, bundle.spec.input
    origin = manifest.provenance
    bands = "; ".join(f"{group.name}: {', '.join(group.bands)}" for group in given.groups)
    lines = [
        f"{bundle.spec.name}  serial {manifest.serial}  {bundle.signature}",
        f"bundle   {bundle.path}",
        f"identity sha256 {bundle.sha256}",
        f"input    uint8 {given.height}×{given.width}, {bands}, resize: {given.resize}",
    ]
    if given.value_range is not None:
        low, high = given.value_range
        lines.append(f"range    values {low:g} to {high:g} of images with more than 8 bits become levels 0 to 255")
    lines += [
        f"made     {origin.created} by {origin.tool} from {origin.source}",
        f"trained  {', '.join(origin.data) or 'not recorded'}",
        f"licence  {origin.licence or 'not recorded'}",
    ]
    if origin.command:
        lines.append(f"command  {origin.command}")
    return "\n".join(lines)


def heads(manifest: Manifest) -> Table:
    table = Table(Column("head", no_wrap=True), "kind", "m per pixel", Column("labels", overflow="fold"), title="heads")
    table.caption = GSD_CAPTION
    for head in manifest.spec.heads:
        kind, labels = describe(head)
        table.add_row(head.name, kind, gsd_text(head.gsd), labels)
    return table


def describe(head: Head) -> tuple[str, str]:
    """Kind and labels of a head, for a table."""
    match head:
        case Multiclass():
            extra = f", no label below {head.abstain_below:.2f}" if head.abstain_below else ""
            return f"multiclass of {head.width}{extra}", ", ".join(head.labels)
        case Multilabel():
            return f"multilabel of {head.width}", ", ".join(head.labels)
        case Regression():
            return "regression", f"{head.low} to {head.high} {head.unit}"


def files(manifest: Manifest) -> Table:
    table = Table("file", "bytes", "sha256", title="files, verified")
    for record in manifest.files:
        table.add_row(record.path, f"{record.size:,}", record.sha256[:16] + "…")
    return table


def candidates(manifest: Manifest) -> Table:
    """The candidates of a build. Their names are complete at 80 columns, and long verdicts are folded."""
    assert manifest.build is not None
    build = manifest.build
    numbers = (Column(name, justify="right") for name in ("MB", "loss", "same", "p50 ms", "p99 ms"))
    table = Table(
        Column("candidate", no_wrap=True),
        *numbers,
        Column("verdict", overflow="fold"),
        title=f"built for {build.target} on {build.machine}",
        caption="loss: percentage points of accuracy; same: share of labels as FP32",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for each in build.candidates:
        judged = [f"{each.loss_points:.2f}", f"{each.agreement:.2%}"] if each.agreement else ["—"] * 2
        timed = [f"{each.latency_ms:.2f}", f"{each.latency_p99_ms:.2f}"] if each.latency_ms else ["—"] * 2
        stripped = f" ({each.stripped_size / 1e6:.2f} MB without weights)" if each.stripped_size else ""
        table.add_row(each.name, f"{each.size / 1e6:.2f}", *judged, *timed, f"{each.verdict}{stripped}")
    return table
