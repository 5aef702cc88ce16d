"""An imaging payload: classify frames, apply the routing rule, and send the best products that fit into a pass.

    python satellite.py capture landuse.snb scene:S2.tif?tile=256 queue/ \\
        --rule 'keep if land_use in [residential, industrial] and p >= 0.8 else thumbnail'
    python satellite.py downlink queue/ pass_0042.bin --budget 200000
    python satellite.py ground pass_0042.bin received/
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import cv2
import typer
from store import Store

import spatialnet_edge
from spatialnet_edge.core.frames import to_rgb
from spatialnet_edge.core.predictions import Classification
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.sinks.ccsds import packets_of, receive, split
from spatialnet_edge.sinks.routing import read_rule

QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 85]
THUMBNAIL = (96, 96)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def worth_of(result: FrameResult) -> float:
    """The confidence of the first head, which orders the queue."""
    first = next(iter(result.predictions.values()))
    return first.confidence if isinstance(first, Classification) else 0.5


@app.command()
def capture(
    bundle: str, source: str, queue: Path, rule: Annotated[str, typer.Option(help="See spatialnet_edge/sinks/routing.py.")]
) -> None:
    """Classify every frame and store the selected ones; the log has the results of all frames."""
    store = Store(queue)
    first = store.next_number()
    route = read_rule(rule, spatialnet_edge.open_bundle(bundle).spec)
    counts = dict.fromkeys(("keep", "thumbnail", "nothing"), 0)
    for result in spatialnet_edge.stream(bundle, source, sinks=[f"log:{queue / 'log'}"]):
        decision = route.decide(result)
        counts[decision] += 1
        if decision != "nothing":
            image = to_rgb(result.frame.pixels)[..., ::-1]
            if decision == "thumbnail":
                image = cv2.resize(image, THUMBNAIL, interpolation=cv2.INTER_AREA)
            picture = cv2.imencode(".jpg", image, QUALITY)[1].tobytes()
            store.add(worth_of(result), first + result.seq, decision, picture, result.bundle)
    typer.echo(", ".join(f"{count} {name}" for name, count in counts.items()))


@app.command()
def downlink(
    queue: Path,
    output: Path,
    budget: Annotated[int, typer.Option(help="Byte budget of this pass.")] = 200_000,
    apid: Annotated[int, typer.Option(help="Application process identifier, 0 to 2046.")] = 42,
) -> None:
    """Send the best products that fit; a product interrupted by a power loss is sent again."""
    store = Store(queue)
    used = sent = 0
    with output.open("wb") as radio:
        for product in store.waiting():
            sequence = store.sequence
            picture = product.path.read_bytes()
            packets = packets_of(picture, product.seq, product.kind, product.worth, apid, sequence, product.bundle)
            size = sum(map(len, packets))
            if used + size > budget:
                continue  # a smaller one may still fit
            radio.writelines(packets)
            radio.flush()
            with suppress(OSError):  # only a file can be synced; a radio device reports an error
                os.fsync(radio.fileno())
            store.sequence = (sequence + len(packets)) % (1 << 14)
            store.mark_sent(product)
            used, sent = used + size, sent + 1
    typer.echo(f"{sent} products, {used} of {budget} bytes, {len(list(store.waiting()))} still queued")


@app.command()
def ground(recording: Path, output: Path) -> None:
    """Reassemble a pass and report the losses."""
    found = receive(split(recording.read_bytes()))
    output.mkdir(parents=True, exist_ok=True)
    for seq, product in found.products.items():
        (output / f"{seq:09d}_{product.kind}_{product.confidence:.2f}_{product.bundle}.jpg").write_bytes(product.content)
    for seq, missing in found.incomplete.items():
        typer.echo(f"frame {seq}: {missing} segments are missing")
    typer.echo(
        f"{len(found.products)} products of {found.packets} packets; {found.lost} packets lost, {found.damaged} damaged, "
        f"{found.contradictory} contradictory"
    )


if __name__ == "__main__":
    app()
