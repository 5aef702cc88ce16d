"""Bands beyond red, green and blue: from files, derived, absent."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from conftest import ROOT, SAMPLES
from spatialnet_edge.core.bands import GROUPS, RANGES, SENTINEL_2, band_of, quantise, slope
from spatialnet_edge.core.errors import DataRefused, SourceRefused
from spatialnet_edge.core.frames import Frame, preprocess
from spatialnet_edge.core.spec import RGB, InputSpec
from spatialnet_edge.sources.scene import SceneSource
from spatialnet_training.data.bands import decode, groups_named, synthetic_thermal
from spatialnet_training.data.deep_pixels import decode_with_range
from spatialnet_training.data.file_tree import Tree
from spatialnet_training.data.labelled_dataset import open_labelled
from spatialnet_training.data.samples import load_image


def geotiff(levels: np.ndarray, planar: bool = False) -> bytes:
    """Thirteen bands of 16-bit reflectance, as in EuroSAT's multispectral edition."""
    buffer = io.BytesIO()
    image = levels.transpose(2, 0, 1) if planar else levels
    tifffile.imwrite(buffer, image, photometric="minisblack", planarconfig="separate" if planar else "contig")
    return buffer.getvalue()


@pytest.mark.parametrize("planar", [False, True])
def test_thirteen_bands_are_named_scaled_and_grouped(planar: bool) -> None:
    levels = np.zeros((20, 24, 13), np.uint16)
    for index, _ in enumerate(SENTINEL_2):
        levels[..., index] = 100 * (index + 1)
    levels[0, 0, 3] = 9000  # a cloud
    groups = groups_named(("rgb", "swir", "nir", "thermal"))
    image = load_image(geotiff(levels, planar), 64, groups)
    assert image is not None
    assert image.shape == (20, 24, 7)
    visible, infrared = np.array([400, 300, 200]) / 4000, np.array([1200, 1300, 800]) / 4000
    np.testing.assert_allclose(image[5, 5, :6], 255 * np.concatenate([visible, infrared]), atol=0.51)
    assert image[0, 0, 0] == 255
    assert (image[..., 6] == 0).all()  # no thermal band: absent


def test_a_large_geotiff_shrinks_with_all_its_bands() -> None:
    levels = np.random.default_rng(0).integers(0, 4000, (100, 50, 13), np.uint16)
    image = load_image(geotiff(levels), 40, groups_named(("rgb", "red_edge", "nir", "swir", "atmosphere")))
    assert image is not None
    assert image.shape == (40, 20, 13)


def test_a_photograph_gives_colour_and_derived_bands() -> None:
    labelled = open_labelled(SAMPLES / "eurosat.zip")
    encoded = next(iter(Tree(SAMPLES / "eurosat.zip").read(labelled.files[:1])))
    image = decode(encoded, groups_named(("synthetic_thermal", "rgb", "nir")))
    assert image is not None
    np.testing.assert_array_equal(image[..., 1:4], cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[..., ::-1])
    np.testing.assert_array_equal(image[..., :1], synthetic_thermal(image[..., 1:4]))
    assert (image[..., 4] == 0).all()
    assert decode(b"no image", (RGB,)) is None
    assert decode(b"II*\0 broken", (RGB,)) is None  # tifffile warns in its log


def test_a_compressed_tiff_of_colours_is_read_as_the_runtime_reads_it() -> None:
    """OpenCV writes it with LZW, which tifffile cannot read without an extra library. 16 bits per channel are refused: their
    scale is unknown."""
    image = np.random.default_rng(0).integers(0, 255, (12, 10, 3), np.uint8)
    found = decode(cv2.imencode(".tif", image)[1].tobytes(), (RGB,))
    np.testing.assert_array_equal(found, image[..., ::-1])
    assert decode(cv2.imencode(".tif", image.astype(np.uint16) << 8)[1].tobytes(), (RGB,)) is None


def test_colour_can_be_selected_from_thirteen_bands() -> None:
    levels = np.zeros((8, 8, 13), np.uint16)
    levels[..., SENTINEL_2.index("red")] = 4000
    found = decode(geotiff(levels), (RGB,))
    assert found is not None
    assert found[0, 0].tolist() == [255, 1, 1]  # 0 is kept for "no data"


def test_the_synthetic_thermal_band_is_cool_over_vegetation_and_warm_over_roofs() -> None:
    colours = np.array([[[60, 110, 50], [190, 170, 150], [20, 50, 90]]], np.uint8).repeat(30, axis=0).repeat(30, axis=1)
    thermal = synthetic_thermal(colours)[..., 0].astype(float)
    forest, roof, water = thermal[:, 10:20].mean(), thermal[:, 40:50].mean(), thermal[:, 70:80].mean()
    assert roof > water + 30
    assert roof > forest + 30


def test_a_colour_frame_is_padded_with_zeros_for_absent_groups() -> None:
    groups = groups_named(("nir", "rgb", "swir"))
    spec = InputSpec(height=32, width=32, groups=groups)
    image = np.random.default_rng(0).integers(1, 256, (40, 50, 6), np.uint8)
    fitted = preprocess(np.ascontiguousarray(image[..., 1:4]), spec)
    assert fitted.shape == (32, 32, 6)
    np.testing.assert_array_equal(fitted[..., 1:4], preprocess(image, spec)[..., 1:4])
    assert (fitted[..., [0, 4, 5]] == 0).all()
    with pytest.raises(SourceRefused, match=r"an image of 4 bands; this model takes 6: nir \(1\), rgb \(3\), swir \(2\)"):
        preprocess(image[..., :4].copy(), spec)
    with pytest.raises(SourceRefused, match="an image of 3 bands; this model takes 2"):
        preprocess(image[..., :3].copy(), InputSpec(height=32, width=32, groups=groups_named(("swir",))))


def test_one_band_keeps_its_axis() -> None:
    spec = InputSpec(height=16, width=16, groups=groups_named(("thermal",)))
    assert preprocess(np.zeros((40, 40, 1), np.uint8), spec).shape == (16, 16, 1)


def test_a_tiff_beside_photographs_is_found(tmp_path: Path) -> None:
    (tmp_path / "Forest").mkdir()
    (tmp_path / "Forest" / "1.tif").write_bytes(geotiff(np.zeros((8, 8, 13), np.uint16)))
    assert open_labelled(tmp_path).files == ("Forest/1.tif",)


@pytest.mark.parametrize(
    ("description", "band"),
    [("B04", "red"), ("B8A", "red_edge_4"), ("Band 3", "green"), ("VV", "vv"), ("NIR", "nir"), ("DEM", "elevation"),
     ("SWIR 1", "swir_1"), ("swir22", "swir_2"), ("B2, 490 nm", "blue"), ("quality", None), ("", None)],
)  # fmt: skip
def test_bands_go_by_the_names_that_sensors_give_them(description: str, band: str | None) -> None:
    assert band_of(description) == band


def test_levels_stand_for_the_range_of_the_band_and_zero_for_no_data() -> None:
    values = np.array([[-40.0, -30.0, -12.5, 5.0, np.nan, 9.0]])
    assert quantise(values, "vv").tolist() == [[1, 1, 128, 255, 0, 255]]
    assert quantise(values, "vv", np.array([[True, False, True, True, True, True]]))[0, 1] == 0
    back = RANGES["elevation"].low + quantise(np.array([[1234.0]]), "elevation") / 255 * (4100)
    assert abs(float(back[0, 0]) - 1234) < 8.1  # half a level


def test_a_layout_names_the_bands_of_a_raster_and_elevation_brings_its_slope() -> None:
    levels = np.zeros((16, 16, 3), np.int16)
    levels[..., 0], levels[..., 1] = 3000, -1500
    levels[..., 2] = 30 * np.arange(16)  # one metre up for each metre east, at 30 m per pixel
    image = decode(
        geotiff(levels), groups_named(("nir", "sar", "elevation")), {"nir": 1e-4, "vv": 0.01, "elevation": 1.0}, 30.0
    )
    assert image is not None
    nir, vv, vh, elevation, steep = image[8, 8].tolist()
    assert (nir, vh, steep) == (191, 0, 255)  # VH is not in the raster
    assert vv == round((-15 + 30) / 35 * 255)
    assert elevation == round((240 + 100) / 4100 * 255)
    assert slope(levels[..., 2].astype(np.float32), 30.0)[3, 3] == pytest.approx(1.0)
    assert decode(geotiff(levels), groups_named(("nir",)), {"nir": 1e-4}) is None  # one band is expected


def named_tiff(path: Path, values: np.ndarray, names: tuple[str, ...], **stated: object) -> bytes:
    """A GeoTIFF of `[bands, H, W]` as GDAL writes it, with the names of its bands."""
    rasterio = pytest.importorskip("rasterio")
    shape = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype.name}
    place = rasterio.transform.from_origin(500_000, 5_200_000, 30, 30)
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32633", transform=place, nodata=-9999, **shape) as raster:
        raster.write(values)
        raster.descriptions = names
        for attribute, value in stated.items():
            setattr(raster, attribute, value)
    return path.read_bytes()


def test_a_tiff_that_names_its_bands_is_read_by_them_as_a_scene_is(tmp_path: Path) -> None:
    values = np.stack(
        [np.full((16, 16), level, np.float32) for level in (-12, -20, 0.25)] + [np.tile(30 * np.arange(16.0), (16, 1))]
    )
    values[0, 0, 0] = -9999
    path = tmp_path / "tile.tif"
    encoded = named_tiff(path, values.astype(np.float32), ("VV", "VH", "B08", "DEM"), units=("dB", "dB", "", "m"))
    groups = groups_named(("nir", "sar", "elevation"))
    image = decode_with_range("tile.tif", encoded, groups, None)
    assert image is not None
    assert image[8, 8].tolist() == [159, round(18 / 35 * 255), round(15 / 35 * 255), round((240 + 100) / 4100 * 255), 255]
    assert image[0, 0, 1] == 0
    source = SceneSource(str(path))
    source.for_groups(groups)
    (frame,) = source
    assert isinstance(frame, Frame)
    np.testing.assert_array_equal(frame.pixels, image)


def test_names_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    encoded = named_tiff(tmp_path / "x.tif", np.full((1, 8, 8), 5, np.int16), ("VV",))
    with pytest.raises(DataRefused, match="band 'vv' holds int16 and states no scale"):
        decode(encoded, groups_named(("sar",)))
    encoded = named_tiff(tmp_path / "y.tif", np.full((1, 8, 8), 5, np.int16), ("mystery",))
    with pytest.raises(DataRefused, match="or name its bands in the file"):
        decode_with_range("y.tif", encoded, groups_named(("nir",)), None)


def test_the_page_of_bands_states_the_ranges_of_the_code() -> None:
    page = (ROOT / "docs/bands.md").read_text(encoding="utf-8")
    for name, group in GROUPS.items():
        for band in group.bands if group.ranges else ():
            (row,) = [
                line for line in page.splitlines() if line.startswith(f"| `{name}` |") and f"`{band}`" in line.split("|")[2]
            ]
            span = RANGES[band]
            assert row.endswith(f"| {span.unit} | {span.low:g} to {span.high:g} |"), (row, band)
