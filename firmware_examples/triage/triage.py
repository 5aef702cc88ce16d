"""Triage: classify on board, store the most confident frames of the wanted classes, log every frame.

python triage.py landuse.snb clip.mp4 pass_0042/ --keep residential,water --least 0.8 --budget-kb 500
"""

from __future__ import annotations

import heapq
from pathlib import Path
from typing import Annotated

import cv2
import typer

import spatialnet_edge
from spatialnet_edge.core.frames import to_rgb

THUMBNAIL = (320, 180)
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 80]


def triage(
    bundle: str,
    source: str,
    output: Path,
    keep: Annotated[str, typer.Option(help="Labels of land_use, separated by commas.")],
    least: Annotated[float, typer.Option(min=0, max=1, help="Smallest confidence of a wanted frame.")] = 0.8,
    budget_kb: Annotated[int, typer.Option(min=1, help="Budget of thumbnails for this pass in kilobytes.")] = 500,
) -> None:
    """Store the best wanted frames as thumbnails within the budget, and one line per frame in frames.jsonl."""
    wanted = {label.strip() for label in keep.split(",")}
    log = f"jsonl:{output / 'frames.jsonl'}"
    best: list[tuple[float, int, bytes]] = []  # a heap with the least confident frame first, which is removed first
    used = 0
    for result in spatialnet_edge.stream(bundle, source, smoothing_s=0.3, sinks=[log]):
        answer = result.land_use
        if answer.label not in wanted or answer.confidence < least:
            continue
        small = cv2.resize(to_rgb(result.frame.pixels)[..., ::-1], THUMBNAIL, interpolation=cv2.INTER_AREA)
        encoded = cv2.imencode(".jpg", small, JPEG)[1].tobytes()
        heapq.heappush(best, (answer.confidence, result.seq, encoded))
        used += len(encoded)
        while used > budget_kb * 1000:
            used -= len(heapq.heappop(best)[2])
    for confidence, seq, encoded in best:
        (output / f"{seq:06d}_{confidence:.2f}.jpg").write_bytes(encoded)
    print(f"kept {len(best)} frames, {used} bytes of {budget_kb * 1000}")


if __name__ == "__main__":
    typer.run(triage)
