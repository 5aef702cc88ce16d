"""A companion computer beside PX4 or ArduPilot: classifies what the camera sees, and says where, over MAVLink.

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
    autopilot: Annotated[str, typer.Option(help="Where results go: udpout:HOST:PORT, or a serial device.")],
    listen: Annotated[str, typer.Option(help="Where positions come from; by default the same serial device.")] = "",
    baud: Annotated[int, typer.Option(help="Of a serial device.")] = 57600,
    budget: Annotated[int, typer.Option(help="Bytes a second on the link, for results; 0 for no limit.")] = 2000,
    places: Annotated[Path, typer.Option(help="Where geotagged results are kept on board, as GeoJSON lines.")] = Path(
        "places.geojsonl"
    ),
) -> None:
    """Classify frames, put the autopilot's position on each, report them on the link and keep them on board."""
    uri = f"{autopilot}?budget={budget}&baud={baud}"
    sinks = {"link": f"mavlink:{uri}", "places": f"geojson:{places}"}
    pose = MavlinkPose(Autopilot(listen or autopilot, baud))
    seen = placed = 0
    # The camera is read in a process of its own, which is ended when it hangs. The link is opened again whenever it breaks; a link
    # that is slow or gone costs results, never frames. `wait` also holds for recordings, on which this program is tested.
    with spatialnet_edge.stream(bundle, source, smoothing_s=0.5, wait=True, sinks=sinks, pose=pose) as results:
        for result in results:
            seen += 1
            placed += result.frame.pose is not None
    link = results.sinks[0]
    print(f"{seen} frames, {placed} with a position, {link.dropped} results dropped by the link")


if __name__ == "__main__":
    typer.run(main)
