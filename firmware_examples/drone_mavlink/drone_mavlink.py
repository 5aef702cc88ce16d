"""Companion computer of PX4 or ArduPilot: classifies camera frames and reports results with positions over MAVLink.

python drone_mavlink.py landuse.snb 0 --autopilot /dev/ttyTHS1 --baud 921600
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import spatialnet_edge
from spatialnet_edge.sources.mavlink_pose import MavlinkPose
from spatialnet_edge.sources.pose import Autopilot


def main(
    bundle: str,
    source: str,
    autopilot: Annotated[str, typer.Option(help="Destination of results: udpout:HOST:PORT, or a serial device.")],
    listen: Annotated[str, typer.Option(help="Source of positions. Default: the same serial device.")] = "",
    baud: Annotated[int, typer.Option(help="Baud rate of a serial device.")] = 57600,
    budget: Annotated[int, typer.Option(help="Bytes per second for results on the link; 0: no limit.")] = 2000,
    places: Annotated[Path, typer.Option(help="File for geotagged results on board, as GeoJSON lines.")] = Path(
        "places.geojsonl"
    ),
) -> None:
    """Classify frames, add the autopilot's position, report the results on the link and store them on board."""
    uri = f"{autopilot}?budget={budget}&baud={baud}"
    sinks = {"link": f"mavlink:{uri}", "places": f"geojson:{places}"}
    pose = MavlinkPose(Autopilot(listen or autopilot, baud))
    seen = placed = 0
    # A separate process reads the camera and is killed when it hangs. A broken link is reopened; a slow or missing link costs
    # results, never frames. `wait` also applies to recordings, with which this program is tested.
    with spatialnet_edge.stream(bundle, source, smoothing_s=0.5, wait=True, sinks=sinks, pose=pose) as results:
        for result in results:
            seen += 1
            placed += result.frame.pose is not None
    link = results.sinks[0]
    print(f"{seen} frames, {placed} with a position, {link.dropped} results dropped by the link")


if __name__ == "__main__":
    typer.run(main)
