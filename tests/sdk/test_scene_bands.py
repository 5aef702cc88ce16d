"""Scenes whose bands go by name: physical values become levels, rasters of one place become one input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spatialnet_edge.core.bands import GROUPS, RANGES, absent_parts, quantise
from spatialnet_edge.core.errors import SourceRefused
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.core.spec import BandGroup, PhysicalRange
from spatialnet_edge.core.stored_bands import stored_band
from spatialnet_edge.sources.demo_scene import demo_bands, write_demo_scene
from spatialnet_edge.sources.raster import name_in_file_name
from spatialnet_edge.sources.scene import SceneSource, split_scene

FIVE = tuple(GROUPS[name] for name in ("rgb", "nir", "swir", "elevation", "sar"))
ORIGIN = (500_000.0, 5_200_000.0)


def write(path: Path, values: np.ndarray, names: tuple[str, ...] = (), spacing: float = 10.0, **more: Any) -> Path:
    """A GeoTIFF of `[bands, H, W]` in UTM zone 33 N."""
    rasterio = pytest.importorskip("rasterio")
    shape = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype.name}
    place = rasterio.transform.from_origin(*ORIGIN, spacing, spacing)
    scales, offsets, units = more.pop("scales", None), more.pop("offsets", None), more.pop("units", None)
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32633", transform=place, **shape, **more) as raster:
        raster.write(values)
        if names:
            raster.descriptions = names
        for attribute, value in (("scales", scales), ("offsets", offsets), ("units", units)):
            if value is not None:
                setattr(raster, attribute, value)
    return path


def flat(*levels: float, dtype: str = "uint16", side: int = 16) -> np.ndarray:
    return np.stack([np.full((side, side), level, dtype) for level in levels])


def frames(rest: str, groups: tuple[BandGroup, ...] = FIVE) -> list[Frame | Skipped]:
    source = SceneSource(rest)
    source.for_groups(groups)
    return list(source)


def pixel(rest: str, groups: tuple[BandGroup, ...] = FIVE) -> list[int]:
    (frame,) = frames(rest, groups)
    assert isinstance(frame, Frame)
    return frame.pixels[8, 8].tolist()


def test_bands_go_by_name_in_the_order_of_the_model(tmp_path: Path) -> None:
    path = write(tmp_path / "s2.tif", flat(3000, 400, 2000, 800), ("B08", "B04", "B11", "cloud mask"))
    assert pixel(str(path)) == [26, 0, 0, 191, 127, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("stored", "more", "reflectance"),
    [
        (2500, {}, 0.25),  # integers × 10000, as Sentinel-2's
        (3500, {"offsets": (-1000.0,)}, 0.25),  # its products since 2022
        (500, {"scales": (0.0005,)}, 0.25),
        (25.0, {"units": ("%",), "dtype": "float32"}, 0.25),
        (0.25, {"dtype": "float32"}, 0.25),
    ],
)
def test_a_rasters_own_scale_offset_and_unit_are_read(
    tmp_path: Path, stored: float, more: dict[str, Any], reflectance: float
) -> None:
    dtype = more.pop("dtype", "uint16")
    path = write(tmp_path / "nir.tif", flat(stored, dtype=dtype), ("NIR",), **more)
    assert pixel(str(path), (GROUPS["nir"],)) == [round(reflectance / 0.4 * 255)]


@pytest.mark.parametrize(
    ("values", "units"), [((-12.0, -18.0), None), ((10**-1.2, 10**-1.8), None), ((0.063, 0.0158), ("1", "1"))]
)
def test_radar_in_decibels_and_as_linear_power_gives_the_same_levels(
    tmp_path: Path, values: tuple[float, float], units: tuple[str, str] | None
) -> None:
    path = write(tmp_path / "s1.tif", flat(*values, dtype="float32"), ("VV", "VH"), units=units)
    assert pixel(str(path), (GROUPS["sar"],)) == [round(18 / 35 * 255), round(17 / 35 * 255)]


def test_the_models_own_range_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "nir.tif", flat(5000), ("nir",))
    bright = BandGroup(name="nir", bands=("nir",), ranges=(PhysicalRange(unit="reflectance", low=0, high=1),))
    assert pixel(str(path), (bright,)) == [128]


def test_units_and_scales_that_say_nothing_are_refused(tmp_path: Path) -> None:
    for dtype, unit, band, found in (
        ("uint16", "", "vv", "states no scale"),
        ("float32", "furlong", "elevation", "in 'furlong'"),
    ):
        with pytest.raises(ValueError, match=found):
            stored_band(band, dtype, unit=unit)
    path = write(tmp_path / "VV.tif", flat(300), ())
    with pytest.raises(SourceRefused, match=r"VV\.tif: band 'vv' holds uint16 and states no scale"):
        SceneSource(str(path))


def test_a_missing_band_of_a_group_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "VV.tif", flat(-12.0, dtype="float32"), ("VV",), units=("dB",))
    (frame,) = frames(str(path))
    assert isinstance(frame, Frame)
    assert absent_parts(frame.pixels, FIVE) == ("rgb", "nir", "swir", "elevation", "sar.vh")
    assert absent_parts(frame.pixels[..., -2:], FIVE[-1:]) == ("sar.vh",)
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 9
    assert absent_parts(red, FIVE[:1]) == ()  # a camera sees such a picture
    assert absent_parts(np.zeros((4, 4, 10), np.uint8), FIVE) == ()


def test_no_data_is_zero_and_a_valid_pixel_never_is(tmp_path: Path) -> None:
    values = flat(0, 0)
    values[:, :, 8:] = 1
    values[1] = 700
    values[1, :4] = 65535
    path = write(tmp_path / "s2.tif", values, ("B04", "B08"), nodata=65535)
    (frame,) = frames(str(path), (GROUPS["rgb"], GROUPS["nir"]))
    assert isinstance(frame, Frame)
    assert set(frame.pixels[..., 0].ravel().tolist()) == {1}
    assert frame.pixels[0, 0, 3] == 0
    assert frame.pixels[8, 8, 3] > 0


def test_rasters_of_one_place_become_one_input(tmp_path: Path) -> None:
    paths = write_demo_scene(tmp_path / "a+b", side=128)
    found = frames(f"{'+'.join(map(str, paths))}?tile=64")
    assert len(found) == 4
    bands = demo_bands(side=128)
    first, last = found[0], found[3]
    assert isinstance(first, Frame)
    assert isinstance(last, Frame)
    for index, band in enumerate(("red", "green", "blue", "nir", "swir_1", "swir_2")):
        expected = quantise(bands[band][:64, :64], band)
        assert np.abs(first.pixels[..., index].astype(int) - expected).max() <= 1
    elevation = first.pixels[4:-4, 4:-4, 6].astype(float)
    expected = (bands["elevation"][4:60, 4:60] + 100) / 4100 * 255
    assert np.abs(elevation - expected).mean() < 1  # 40 m and degrees, warped to 10 m
    assert first.pixels[..., 7].any()  # the slope
    assert first.pixels[..., 8:].all()
    assert not last.pixels[:, 32:, 8:].any()  # beyond the radar's swath
    assert first.footprint
    low, high = RANGES["vv"].low, RANGES["vv"].high
    vv = low + first.pixels[..., 8].astype(float) / 255 * (high - low)
    assert abs(vv.mean() - bands["vv"][:64, :64].mean()) < 1


def test_a_raster_far_away_is_absent_rather_than_an_error(tmp_path: Path) -> None:
    near = write(tmp_path / "s2.tif", flat(500, 600, 700), ("B04", "B03", "B02"))
    rasterio = pytest.importorskip("rasterio")
    far = tmp_path / "far.tif"
    with rasterio.open(
        far, "w", driver="GTiff", crs="EPSG:4326", transform=rasterio.transform.from_origin(-70, -30, 0.001, 0.001),
        count=1, height=16, width=16, dtype="float32",
    ) as raster:  # fmt: skip
        raster.write(flat(200, dtype="float32"))
        raster.descriptions = ("dem",)
    assert pixel(f"{near}+{far}")[6:] == [0, 0, 0, 0]


def test_what_cannot_be_joined_is_refused(tmp_path: Path) -> None:
    named = write(tmp_path / "s2.tif", flat(500), ("B04",))
    unnamed = write(tmp_path / "other.tif", flat(500, 500))
    with pytest.raises(SourceRefused, match=r"other\.tif: its bands have no known names|this model takes"):
        frames(f"{unnamed}+{unnamed}")
    with pytest.raises(SourceRefused, match="rasters that are read together are selected by name"):
        SceneSource(f"{named}+{unnamed}?bands=1&scale=10")
    with pytest.raises(SourceRefused, match=r"missing\.tif: no such file"):
        SceneSource(f"{named}+{tmp_path / 'missing.tif'}")
    with pytest.raises(SourceRefused, match="has the bands red; this model takes vv, vh"):
        frames(str(named), (GROUPS["sar"],))
    placeless = tmp_path / "placeless.tif"
    rasterio = pytest.importorskip("rasterio")
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        raster = rasterio.open(placeless, "w", driver="GTiff", count=1, height=16, width=16, dtype="float32")
    with raster:
        raster.write(flat(1, dtype="float32"))
        raster.descriptions = ("dem",)
    with pytest.raises(SourceRefused, match=r"placeless\.tif: has no georeference"):
        SceneSource(f"{named}+{placeless}")


def test_a_plus_and_a_question_mark_may_be_part_of_a_name(tmp_path: Path) -> None:
    for name in ("a+b.tif", "c?d.tif", "e.tif"):
        (tmp_path / name).touch()
    a, c, e = (str(tmp_path / name) for name in ("a+b.tif", "c?d.tif", "e.tif"))
    assert split_scene(a) == ([a], "")
    assert split_scene(f"{a}+{c}+{e}?tile=64") == ([a, c, e], "tile=64")
    assert split_scene(f"{e}+{c}?tile=64&overlap=8") == ([e, c], "tile=64&overlap=8")
    assert split_scene(f"{e}+gone.tif?tile=64") == ([e, "gone.tif"], "tile=64")
    assert split_scene("gone+1.tif") == (["gone+1.tif"], "")


@pytest.mark.parametrize(
    ("name", "band"),
    [("T33UUP_20200101_B04_10m.jp2", "red"), ("Copernicus_30_N50_DEM.tif", "elevation"), ("red.tif", "red"), ("S1_VH.tif", "vh"),
     ("Blue_Nile.tif", None), ("LC08_L2SP_042034_SR_B5.TIF", None), ("HLS.L30.T11SKA.2020.B05.tif", None), ("quality.tif", None)],
)  # fmt: skip
def test_a_file_of_one_band_may_be_named_after_it(name: str, band: str | None) -> None:
    assert name_in_file_name(Path(name)) == band


def test_the_demo_scene_is_the_same_for_the_same_seed_and_physical() -> None:
    bands, again, other = demo_bands(1, 64), demo_bands(1, 64), demo_bands(2, 64)
    for name, values in bands.items():
        np.testing.assert_array_equal(values, again[name])
        span = RANGES[name]
        assert ((values >= span.low - 15) & (values <= span.high + 15)).all()
    assert (bands["nir"] != other["nir"]).any()
    json.dumps({name: float(values.mean()) for name, values in bands.items()})
