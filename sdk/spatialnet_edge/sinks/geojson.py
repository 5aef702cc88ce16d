"""GeoJSON sink: one feature per line (RFC 7946, RFC 8142 without the separators)."""

from __future__ import annotations

from importlib import import_module
from typing import Any, final

from spatialnet_edge.core.errors import MissingExtra
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.sinks.jsonl import JsonLines


@final
class GeoJsonSink:
    """`geojson:places.geojsonl`. A frame with a footprint becomes a polygon, one with a pose a point; others are omitted.

    Raises:
        SinkRefused: the file cannot be written.
    """

    wants_pixels = False

    def __init__(self, rest: str) -> None:
        self._lines = JsonLines("geojson", rest)

    @property
    def over_budget(self) -> int:
        return self._lines.over_budget

    def write(self, result: FrameResult) -> None:
        geometry = geometry_of(result)
        if geometry is not None:
            properties = {name: value for name, value in result.to_dict().items() if name not in ("pose", "footprint")}
            self._lines.write({"type": "Feature", "geometry": geometry, "properties": properties}, f"frame {result.seq}")

    def close(self) -> None:
        self._lines.close()


def geometry_of(result: FrameResult) -> dict[str, Any] | None:
    """The geometry of a result: longitude before latitude (RFC 7946, section 3.1.1)."""
    frame = result.frame
    if frame.footprint:
        return polygon(frame.footprint)
    if frame.pose is not None:
        height = [] if frame.pose.altitude is None else [frame.pose.altitude]
        return {"type": "Point", "coordinates": [frame.pose.longitude, frame.pose.latitude, *height]}
    return None


def polygon(outline: tuple[tuple[float, float], ...]) -> dict[str, Any]:
    """Convert an outline to a geometry; it is cut at the antimeridian (RFC 7946, section 3.1.9).

    Raises:
        MissingExtra: it must be cut, and the extra `geo` is not installed.
    """
    ring = [*outline, outline[0]]
    if all(abs(longitude) <= 180 for longitude, _ in ring):
        return {"type": "Polygon", "coordinates": [ring]}
    try:
        antimeridian: Any = import_module("antimeridian")
    except ModuleNotFoundError as error:
        raise MissingExtra("antimeridian", "geo") from error
    return antimeridian.fix_geojson({"type": "Polygon", "coordinates": [ring]})
