"""Where a frame was taken: scenes as tiles with footprints, EXIF, a callback, an autopilot's MAVLink stream."""

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import tty
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

import spatialnet_edge
from conftest import CLIP, clip_frames
from spatialnet_edge.core.errors import SourceRefused, UsageError
from spatialnet_edge.core.frames import Frame, Pose, Skipped
from spatialnet_edge.sinks.registry import open_sink
from spatialnet_edge.sources.exif import exif_pose
from spatialnet_edge.sources.pose import open_pose
from spatialnet_edge.sources.raster_stack import count_starts, starts
from spatialnet_edge.sources.registry import open_source
from spatialnet_edge.sources.supervised import SupervisedSource, Timeouts

BRIGHTON = (699_960.0, 5_650_000.0)
"""Easting and northing in UTM zone 30 N of the scene's upper left corner."""


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A real picture as a raster of 16 bits and four bands at 10 m, with a corner without data."""
    rasterio = pytest.importorskip("rasterio")
    from rasterio.transform import from_origin

    image = cv2.resize(clip_frames(1)[0], (300, 200)).astype(np.uint16) * 10 + 1
    image[:64, :64] = 0
    bands = np.concatenate([np.moveaxis(image, 2, 0), image[None, ..., 0]])
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=300, height=200, count=4, dtype="uint16", crs="EPSG:32630", nodata=0,
        transform=from_origin(*BRIGHTON, 10, 10),
    ) as raster:  # fmt: skip
        raster.write(bands)
    return path


def tiles(uri: str) -> list[Frame | Skipped]:
    source = open_source(uri)
    found = list(source)
    assert source.length == len(found)
    source.close()
    return found


def test_a_scene_becomes_tiles_with_footprints(scene: Path) -> None:
    from rasterio.warp import transform

    found = tiles(f"scene:{scene}?tile=64&scale=2550")
    assert len(found) == 5 * 4  # the last row and column reach back
    assert isinstance(found[0], Skipped)
    assert found[0].reason == "no_data"
    frame = found[6]
    assert isinstance(frame, Frame)
    whole = cv2.resize(clip_frames(1)[0], (300, 200))
    assert np.abs(frame.pixels.astype(int) - whole[64:128, 64:128]).max() <= 1
    east, north = BRIGHTON
    corners = [(64, 128), (128, 128), (128, 64), (64, 64)]
    expected = transform("EPSG:32630", "EPSG:4326", [east + 10 * x for x, _ in corners], [north - 10 * y for _, y in corners])
    assert np.allclose(frame.footprint, np.array(expected).T, atol=1e-6)
    assert frame.pose is not None
    assert 50 < frame.pose.latitude < 52
    (x0, y0), (x1, y1), (x2, y2) = frame.footprint[:3]
    assert (x1 - x0) * (y2 - y1) - (y1 - y0) * (x2 - x1) > 0  # anticlockwise


def test_footprints_come_through_a_capture_process_too(scene: Path) -> None:
    uri = f"scene:{scene}?tile=64&scale=2550"
    source = SupervisedSource(uri, Timeouts(give_up="always"), live=False)
    there = [item.footprint for item in source if isinstance(item, Frame)]
    assert there == [item.footprint for item in tiles(uri) if isinstance(item, Frame)]
    assert there[0]


def test_a_scene_gives_as_many_bands_as_are_asked_for(scene: Path) -> None:
    for bands in ("4", "4,1", "3,2,1,4"):
        found = [item for item in tiles(f"scene:{scene}?tile=64&scale=2550&bands={bands}") if isinstance(item, Frame)]
        assert {item.pixels.shape for item in found} == {(64, 64, bands.count(",") + 1)}
    colour = [item for item in tiles(f"scene:{scene}?tile=64&scale=2550") if isinstance(item, Frame)]
    np.testing.assert_array_equal(found[3].pixels[..., [2, 1, 0]], colour[3].pixels)
    np.testing.assert_array_equal(found[3].pixels[..., 3], colour[3].pixels[..., 0])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("", "holds uint16; set scale="),
        ("?scale=3000&bands=9,1,2", "has 4 bands"),
        ("?tile=4", "tile must be from 8"),
        ("?colour=1", "unknown option 'colour'"),
        ("?tile=x", "example: scene:"),
    ],
)
def test_options_that_do_not_match_a_scene_are_refused(scene: Path, options: str, reason: str) -> None:
    with pytest.raises(SourceRefused, match=reason):
        open_source(f"scene:{scene}{options}")


def test_a_file_that_is_no_raster_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    (tmp_path / "x.tif").write_bytes(b"Dear diary")
    with pytest.raises(SourceRefused, match="GDAL cannot read"):
        open_source(f"scene:{tmp_path / 'x.tif'}")


def test_a_folder_of_rasters_is_read_one_after_the_other(scene: Path) -> None:
    """Chips of a multispectral data set: each frame has its file name, and a broken file is reported."""
    folder = scene.parent
    (folder / "forest").mkdir()
    shutil.copy(scene, folder / "forest" / "1.tif")
    cv2.imwrite(str(folder / "preview.jpg"), clip_frames(1)[0])  # three bands, where four are asked for
    (folder / "broken.tif").write_bytes(scene.read_bytes()[:200])
    source = open_source(f"scene:{folder}?tile=200&scale=2550&bands=1,2,3,4")
    assert source.length is None
    found = list(source)
    assert [item.seq for item in found] == list(range(6))
    broken, *chips, preview = found[0], *found[1:3], found[3]
    assert isinstance(broken, Skipped)
    assert "broken.tif: GDAL cannot read" in broken.detail
    assert isinstance(preview, Skipped)
    assert "preview.jpg: has 3 bands; bands=1,2,3,4 is out of range" in preview.detail
    assert [Path(chip.source).name for chip in chips if isinstance(chip, Frame)] == ["1.tif", "1.tif"]
    assert {item.pixels.shape for item in found if isinstance(item, Frame)} == {(200, 200, 4)}


def test_options_are_held_against_a_folder_at_once(scene: Path) -> None:
    (scene.parent / "broken.tif").write_bytes(b"Dear diary")
    with pytest.raises(SourceRefused, match=r"scene\.tif: has 4 bands; bands=9 is out of range"):
        open_source(f"scene:{scene.parent}?bands=9&scale=1")
    scene.unlink()
    with pytest.raises(SourceRefused, match="GDAL cannot read"):
        open_source(f"scene:{scene.parent}")
    (scene.parent / "broken.tif").unlink()
    with pytest.raises(SourceRefused, match="no raster in this folder or below"):
        open_source(f"scene:{scene.parent}")


@pytest.mark.parametrize(("length", "side", "step", "expected"), [(10, 4, 4, [0, 4, 6]), (8, 4, 4, [0, 4]), (4, 4, 1, [0])])
def test_tiles_cover_the_edge(length: int, side: int, step: int, expected: list[int]) -> None:
    assert list(starts(length, side, step)) == expected
    assert count_starts(length, side, step) == len(expected)


def test_a_scene_goes_out_as_geojson(scene: Path, tiny_path: Path, tmp_path: Path) -> None:
    sink = open_sink(f"geojson:{tmp_path / 'places.geojsonl'}")
    results = list(spatialnet_edge.stream(tiny_path, f"scene:{scene}?tile=100&scale=2550", sinks=[sink]))
    sink.close()
    features = [json.loads(line) for line in (tmp_path / "places.geojsonl").read_text().splitlines()]
    assert len(features) == len(results) == 6
    first = features[0]
    assert first["geometry"]["type"] == "Polygon"
    ring = first["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]
    assert len(ring) == 5
    assert first["properties"]["predictions"]["shade"]["label"] in ("dark", "bright", None)


def test_a_photograph_says_where_it_was_taken(tmp_path: Path) -> None:
    images = pytest.importorskip("PIL.Image")
    exif = images.Exif()
    gps = {1: "S", 2: (33.0, 51.0, 30.0), 3: "W", 4: (151.0, 12.0, 36.0), 5: b"\x00", 6: 120.5}
    exif[0x8825] = gps
    images.fromarray(clip_frames(1)[0]).save(tmp_path / "placed.jpg", exif=exif)
    cv2.imwrite(str(tmp_path / "plain.jpg"), clip_frames(1)[0])
    plain, placed = (next(iter(open_source(str(tmp_path / name)))) for name in ("plain.jpg", "placed.jpg"))
    assert isinstance(plain, Frame)
    assert isinstance(placed, Frame)
    assert plain.pose is None
    assert placed.pose == Pose(pytest.approx(-33.8583333), pytest.approx(-151.21), 120.5)


@pytest.mark.parametrize(
    ("latitude", "altitude", "expected"),
    [
        ((51, 1), (100, 1), Pose(51.0, -4.0, 100.0)),
        ((51, 1), (0, 0), Pose(51.0, -4.0)),
        ((0, 0), (100, 1), None),  # written by a receiver without a fix
        ((500, 1), (100, 1), None),
    ],
)
def test_a_photograph_taken_nowhere_on_earth_has_no_place(
    latitude: tuple[int, int], altitude: tuple[int, int], expected: Pose | None
) -> None:
    images, tags = pytest.importorskip("PIL.Image"), pytest.importorskip("PIL.TiffImagePlugin")
    exif = images.Exif()
    zero = tags.IFDRational(0, 1)
    exif[0x8825] = {
        1: "N", 2: (tags.IFDRational(*latitude), zero, zero), 3: "W", 4: (4.0, 0.0, 0.0), 6: tags.IFDRational(*altitude)
    }  # fmt: skip
    encoded = io.BytesIO()
    images.new("RGB", (32, 32)).save(encoded, "JPEG", exif=exif)
    assert exif_pose(encoded.getvalue()) == expected


def test_a_callback_gives_the_pose_of_each_moment(tiny_path: Path, tmp_path: Path) -> None:
    asked: list[int] = []

    def pose(captured_ns: int) -> Pose | None:
        asked.append(captured_ns)
        return Pose(50.8, -0.1, 100.0) if len(asked) > 3 else None

    sink = open_sink(f"geojson:{tmp_path / 'places.geojsonl'}")
    stream = spatialnet_edge.stream(tiny_path, str(CLIP), pose=pose, sinks=[sink])
    results = [next(stream) for _ in range(8)]
    stream.close()
    sink.close()
    assert [result.frame.pose is None for result in results] == [True] * 3 + [False] * 5
    assert asked[:8] == [result.frame.captured_ns for result in results]
    points = [json.loads(line)["geometry"] for line in (tmp_path / "places.geojsonl").read_text().splitlines()]
    assert points == [{"type": "Point", "coordinates": [-0.1, 50.8, 100.0]}] * 5


def test_an_autopilots_stream_gives_the_pose_nearest_in_time() -> None:
    mavutil = pytest.importorskip("pymavlink.mavutil")
    pose_at = open_pose("mavlink:udpin:127.0.0.1:14777")
    assert pose_at(time.monotonic_ns()) is None
    autopilot = mavutil.mavlink_connection("udpout:127.0.0.1:14777", source_system=1, source_component=1)
    moments: list[int] = []
    autopilot.mav.global_position_int_send(0, 0, 0, 0, 0, 0, 0, 0, 0)  # no fix yet
    time.sleep(0.3)
    assert pose_at(time.monotonic_ns()) is None
    for step in range(5):
        autopilot.mav.attitude_send(0, 0.1, -0.2, 0.3, 0, 0, 0)
        autopilot.mav.global_position_int_send(0, 508000000 + step * 1000, -1000000, 120000, 80000, 0, 0, 0, 0)
        time.sleep(0.4)
        moments.append(time.monotonic_ns())
    found = [pose_at(moment - 400_000_000) for moment in moments]
    assert [pose and round(pose.latitude, 4) for pose in found] == [50.8, 50.8001, 50.8002, 50.8003, 50.8004]
    assert found[0] is not None
    assert (found[0].longitude, found[0].altitude) == (-0.1, 120.0)
    assert (round(found[0].roll, 1), round(found[0].pitch, 1), round(found[0].yaw, 1)) == (5.7, -11.5, 17.2)
    assert pose_at(time.monotonic_ns() + 10 * 10**9) is None  # too old by then
    autopilot.close()
    pose_at.close()  # type: ignore[attr-defined]


@pytest.mark.fault(42)
def test_an_autopilot_may_start_later_than_its_payload_and_go_away_for_a_while(tmp_path: Path) -> None:
    """A real serial line of the kernel (pty(7)) that is absent at first, appears, is unplugged, and comes back."""
    mavlink = pytest.importorskip("pymavlink.dialects.v20.common")
    line = tmp_path / "ttyACM0"
    with pytest.raises(SourceRefused, match="ttyACM0: cannot be opened"):
        open_pose(f"mavlink:{line}?baud=115200")
    pose_at = open_pose(f"mavlink:{line}?baud=115200", patient=True)
    for latitude in (508000000, 509000000):
        assert pose_at(time.monotonic_ns()) is None
        ours, theirs = os.openpty()
        tty.setraw(theirs)
        line.symlink_to(os.ttyname(theirs))
        content = mavlink.MAVLink_global_position_int_message(0, latitude, -1000000, 120000, 80000, 0, 0, 0, 0)
        until = time.monotonic() + 20
        while (found := pose_at(time.monotonic_ns())) is None and time.monotonic() < until:
            os.write(ours, content.pack(mavlink.MAVLink(None, srcSystem=1, srcComponent=1)))
            time.sleep(0.1)
        assert found is not None
        assert found.latitude == latitude / 1e7
        line.unlink()
        os.close(theirs)
        os.close(ours)
        time.sleep(2.5)  # until the last position is too old
    pose_at.close()  # type: ignore[attr-defined]


def test_a_pose_of_another_kind_is_refused() -> None:
    for uri in ("gps:0", "mavlink:", "mavlink:?baud=1"):
        with pytest.raises(UsageError, match="expected mavlink:"):
            open_pose(uri)
    with pytest.raises(UsageError, match="baud=fast: expected a whole number"):
        open_pose("mavlink:/dev/ttyTHS1?baud=fast")


def write_raster(path: Path, crs: object, transform: object, pixels: np.ndarray | None = None, **profile: object) -> Path:
    rasterio = pytest.importorskip("rasterio")
    values = np.moveaxis(clip_frames(1)[0][:256, :256], 2, 0) if pixels is None else pixels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            path, "w", driver="GTiff", width=values.shape[2], height=values.shape[1], count=values.shape[0], dtype=values.dtype,
            crs=crs, transform=transform, **profile,
        ) as raster:  # fmt: skip
            raster.write(values)
    return path


def first_tile(path: Path, options: str = "") -> Frame:
    item = next(iter(open_source(f"scene:{path}{options}")))
    assert isinstance(item, Frame), item
    return item


def area_of(ring: tuple[tuple[float, float], ...]) -> float:
    """Twice the signed area, positive for anticlockwise."""
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, (*ring[1:], ring[0]), strict=True))


def geometry_of_frame(frame: Frame) -> dict[str, object]:
    from spatialnet_edge.sinks.geojson import polygon

    return polygon(frame.footprint)


def test_a_tile_across_the_antimeridian_is_small_and_is_cut_there(tmp_path: Path) -> None:
    """RFC 7946 section 3.1.9."""
    affine = pytest.importorskip("rasterio.transform")
    shapely = pytest.importorskip("shapely.geometry")
    frame = first_tile(write_raster(tmp_path / "x.tif", "EPSG:3832", affine.from_origin(3339584.7 - 1280, -1920000, 10, 10)))
    longitudes = [longitude for longitude, _ in frame.footprint]
    assert max(longitudes) - min(longitudes) < 0.1
    assert area_of(frame.footprint) > 0
    assert frame.pose is not None
    assert abs(abs(frame.pose.longitude) - 180) < 0.01
    geometry = geometry_of_frame(frame)
    assert geometry["type"] == "MultiPolygon"
    shape = shapely.shape(geometry)
    assert shape.is_valid
    assert shape.area == pytest.approx(area_of(frame.footprint) / 2, rel=1e-3)
    assert all(abs(longitude) <= 180 for part in shape.geoms for longitude, _ in part.exterior.coords)


@pytest.mark.parametrize(("crs", "latitude"), [("EPSG:3413", 90), ("EPSG:3031", -90)])
def test_a_tile_round_a_pole_reaches_the_pole(tmp_path: Path, crs: str, latitude: int) -> None:
    affine = pytest.importorskip("rasterio.transform")
    shapely = pytest.importorskip("shapely.geometry")
    frame = first_tile(write_raster(tmp_path / "x.tif", crs, affine.from_origin(-1280, 1280, 10, 10)))
    assert frame.pose is not None
    assert frame.pose.latitude == pytest.approx(latitude, abs=1e-5)
    shape = shapely.shape(geometry_of_frame(frame))
    assert shape.is_valid
    assert shape.bounds[0] == -180
    assert shape.bounds[2] == 180
    for longitude in (-170, -45, 0, 91, 179):
        assert shape.contains(shapely.Point(longitude, latitude * 0.99999))
        assert not shape.contains(shapely.Point(longitude, latitude * 0.99))


def test_a_raster_whose_first_row_lies_in_the_south_is_anticlockwise_too(tmp_path: Path) -> None:
    affine = pytest.importorskip("affine")
    frame = first_tile(write_raster(tmp_path / "x.tif", "EPSG:32630", affine.Affine(10, 0, 699_960, 0, 10, 5_640_000)))
    assert area_of(frame.footprint) > 0


def test_a_raster_that_does_not_say_where_it_lies_has_an_answer_and_no_place(tmp_path: Path) -> None:
    affine = pytest.importorskip("affine")
    crs = pytest.importorskip("rasterio.crs").CRS
    local = crs.from_wkt('LOCAL_CS["x",UNIT["metre",1]]')
    for name, system, transform in (
        ("local", local, affine.Affine(1, 0, 100, 0, -1, 100)),
        ("identity", "EPSG:4326", affine.Affine.identity()),
        ("nowhere", "EPSG:32630", affine.Affine(1e9, 0, 1e15, 0, -1e9, 1e15)),
    ):
        frame = first_tile(write_raster(tmp_path / f"{name}.tif", system, transform))
        assert frame.footprint == (), name
        assert frame.pose is None, name
        assert frame.pixels.shape == (256, 256, 3)


def test_a_rasters_own_offset_is_added_before_the_scale(tmp_path: Path) -> None:
    """As Sentinel-2 has it since 2022: reflectance = stored * 0.0001 - 0.1."""
    rasterio = pytest.importorskip("rasterio")
    affine = pytest.importorskip("affine")
    stored = np.full((3, 64, 64), 1000, np.uint16)
    stored[:, 32:] = 2500
    path = write_raster(tmp_path / "x.tif", "EPSG:32633", affine.Affine(10, 0, 5e5, 0, -10, 46e5), stored)
    plain = first_tile(path, "?scale=3000").pixels
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = (0.0001,) * 3, (-0.1,) * 3
    pixels = first_tile(path, "?scale=3000").pixels
    assert (plain[0, 0, 0], plain[-1, 0, 0]) == (85, 212)
    assert (pixels[0, 0, 0], pixels[-1, 0, 0]) == (0, 127)


@pytest.mark.fault(54)
def test_a_raster_that_names_other_files_or_addresses_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    asked: list[str] = []

    class Counting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    band = '<VRTRasterBand dataType="Byte" band="{}" {}>{}</VRTRasterBand>'
    with ThreadingHTTPServer(("127.0.0.1", 0), Counting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        remote = (
            f'<SimpleSource><SourceFilename relativeToVRT="0">/vsicurl/http://127.0.0.1:{server.server_port}/x.tif'
            f"</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
        )
        local = (
            '<SourceFilename relativeToVRT="0">/etc/passwd</SourceFilename><ImageOffset>0</ImageOffset>'
            "<PixelOffset>1</PixelOffset><LineOffset>16</LineOffset>"
        )
        service = (
            f'<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:{server.server_port}/${{z}}.png</ServerUrl></Service>'
            f"<DataWindow><UpperLeftX>-1</UpperLeftX><UpperLeftY>1</UpperLeftY><LowerRightX>1</LowerRightX><LowerRightY>-1"
            f"</LowerRightY><TileLevel>1</TileLevel></DataWindow><BandsCount>3</BandsCount></GDAL_WMS>"
        )
        head = '<VRTDataset rasterXSize="16" rasterYSize="16">'
        texts = {
            "remote.tif": head + "".join(band.format(i, "", remote) for i in (1, 2, 3)) + "</VRTDataset>",
            "raw.jpg": head
            + "".join(band.format(i, 'subClass="VRTRawRasterBand"', local) for i in (1, 2, 3))
            + "</VRTDataset>",
            "wms.tif": service,
        }
        for name, text in texts.items():
            (tmp_path / name).write_text(text)
            with pytest.raises(SourceRefused, match="GDAL cannot read"):
                list(open_source(f"scene:{tmp_path / name}?tile=8"))
        server.shutdown()
    assert asked == []


@pytest.mark.fault(54)
def test_an_absurdly_large_raster_costs_no_memory(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    sparse = {"driver": "GTiff", "width": 400_000, "height": 400_000, "count": 3, "dtype": "uint8"}
    sparse |= {"SPARSE_OK": True, "BIGTIFF": "YES"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            tmp_path / "x.tif", "w", tiled=True, blockxsize=4096, blockysize=4096, compress="deflate", **sparse
        ):
            pass
        sparse |= {"width": 32_000, "height": 32_000, "compress": "deflate"}
        with rasterio.open(tmp_path / "one.tif", "w", tiled=True, blockxsize=32_000, blockysize=32_000, **sparse):
            pass
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\nfrom itertools import islice\nfrom "
        "spatialnet_edge.sources.registry import open_source\nsource = "
        f"open_source('scene:{tmp_path / 'x.tif'}?tile=32')\nprint(source.length, len(list(islice(source, 3))))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [str(12_500**2), "3"]
    with pytest.raises(SourceRefused, match="stored in blocks of"):
        open_source(f"scene:{tmp_path / 'one.tif'}?tile=32")


def photograph(gps: dict[int, object], xmp: bytes = b"") -> bytes:
    images = pytest.importorskip("PIL.Image")
    exif = images.Exif()
    exif[0x8825] = gps
    encoded = io.BytesIO()
    images.new("RGB", (32, 32)).save(encoded, "JPEG", exif=exif, xmp=xmp)
    return encoded.getvalue()


PLACE = {2: (33.0, 52.0, 12.0), 4: (70.0, 12.0, 36.0)}


@pytest.mark.parametrize(("south", "west"), [("S", "W"), ("s", "w"), ("South", "West"), (" S", "W\0")])
def test_references_are_read_in_any_spelling(south: str, west: str) -> None:
    assert exif_pose(photograph({1: south, 3: west, **PLACE})) == Pose(pytest.approx(-33.87), pytest.approx(-70.21))


@pytest.mark.parametrize(
    "gps",
    [
        PLACE,
        {1: "S", **PLACE},
        {1: "X", 3: "W", **PLACE},
        {1: "S", 3: "W", 9: "V", **PLACE},
        {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)},
    ],
)
def test_a_position_that_is_not_known_is_none(gps: dict[int, object]) -> None:
    assert exif_pose(photograph(gps)) is None


def test_djis_attitude_is_the_cameras() -> None:
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description drone-dji:GimbalYawDegree="+84.20"'
        b' drone-dji:GimbalPitchDegree="-44.50"'
        b' drone-dji:FlightYawDegree="+85.0" drone-dji:FlightRollDegree="+1.0"/></x:xmpmeta>'
    )
    pose = exif_pose(photograph({1: "S", 3: "E", 5: b"\x01", 6: 20.0, **PLACE}, xmp))
    assert pose is not None
    assert (pose.altitude, pose.roll, pose.pitch, pose.yaw) == (-20.0, 1.0, -44.5, 84.2)


def test_what_a_pose_does_not_know_is_none_wherever_it_goes(tmp_path: Path) -> None:
    pose = Pose(50.8, -0.1)
    assert (pose.altitude, pose.roll, pose.pitch, pose.yaw) == (None, None, None, None)
    (tmp_path / "x.jpg").write_bytes(photograph({1: "N", 3: "W", **PLACE}))
    (frame,) = SupervisedSource(str(tmp_path / "x.jpg"), Timeouts(give_up="always"), live=False)
    assert isinstance(frame, Frame)
    assert frame.pose is not None
    assert frame.pose.altitude is None
    assert frame.pose.yaw is None
