"""A generated scene of optical bands, radar and elevation, for trying a network with several band groups without a download.

    python -m spatialnet_edge.sources.demo_scene demo/
    spatialnet-edge run builtin:spatialnet-ms "scene:demo/S2.tif+demo/S1.tif+demo/DEM.tif?tile=64"

NOT a measurement: terrain is filtered noise, and each kind of land cover has typical reflectances and radar backscatter. The
same seed gives the same scene. Its rasters have the properties of real ones: names, scale and no-data value of each band, three
resolutions and two coordinate systems. Radar covers only the western three quarters, as at the edge of a swath.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.bands import slope
from spatialnet_edge.core.errors import MissingExtra

SIDE, METRES_PER_PIXEL = 384, 10.0
"""Side of the scene in pixels: 3.84 km at Sentinel-2's finest resolution."""
UTM, ORIGIN = "EPSG:32633", (500_000.0, 5_200_000.0)
RADAR_COVERS = 0.75
HEIGHT_OF_HILLS = 120.0
"""Standard deviation of the elevation, in metres."""
LOOKS = 4
"""Number of radar looks per pixel; fewer give more speckle."""

OPTICAL = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "swir_1": "B11", "swir_2": "B12"}
"""Band to its name in the file of optical bands."""
RADAR = {"vv": "VV", "vh": "VH"}

KINDS = ("water", "forest", "grassland", "cropland", "built", "bare", "burned")
_SPECTRA = np.array(
    [
        # blue, green, red, nir, swir_1, swir_2 (reflectance), vv, vh (dB)
        (0.05, 0.05, 0.03, 0.02, 0.01, 0.01, -22, -30),
        (0.03, 0.05, 0.03, 0.30, 0.15, 0.07, -11, -17),
        (0.05, 0.08, 0.07, 0.30, 0.22, 0.13, -13, -20),
        (0.06, 0.09, 0.09, 0.34, 0.24, 0.15, -12, -19),
        (0.12, 0.13, 0.14, 0.20, 0.22, 0.20, -6, -14),
        (0.12, 0.16, 0.20, 0.28, 0.35, 0.30, -14, -22),
        (0.05, 0.06, 0.07, 0.11, 0.20, 0.22, -13, -21),
    ],
    np.float32,
)


def demo_bands(seed: int = 0, side: int = SIDE) -> dict[str, NDArray[np.float32]]:
    """Band name to physical values, float32 `[side, side]`: reflectance, decibels, metres and metres a metre."""
    chance = np.random.default_rng(seed)
    elevation = np.asarray(450 + HEIGHT_OF_HILLS * side / SIDE * smooth_noise(chance, side, 2.2), np.float32)
    kinds = land_cover(chance, elevation)
    bands: dict[str, NDArray[np.float32]] = {}
    for column, name in enumerate((*OPTICAL, *RADAR)):
        typical = _SPECTRA[kinds, column]
        if name in OPTICAL:
            texture = 1 + 0.1 * smooth_noise(chance, side, 1.0) + 0.05 * chance.standard_normal((side, side))
            bands[name] = np.asarray(np.minimum(np.maximum(typical * texture, 0.001), 1), np.float32)
        else:
            speckle = chance.gamma(LOOKS, 1 / LOOKS, (side, side))
            bands[name] = np.asarray(typical + 10 * np.log10(np.maximum(speckle, 1e-3)), np.float32)
    return bands | {"elevation": elevation, "slope": slope(elevation, METRES_PER_PIXEL)}


def land_cover(chance: np.random.Generator, elevation: NDArray[np.float32]) -> NDArray[np.int64]:
    """The land cover of each pixel, an index of `KINDS`: int64 `[side, side]`."""
    side = len(elevation)
    fields = np.kron(chance.random((side // 16 + 1, side // 16 + 1)), np.ones((16, 16)))[:side, :side]
    moist, towns, fires = (smooth_noise(chance, side, 1.6) for _ in range(3))
    water, low, high = np.quantile(elevation, (0.12, 0.5, 0.93))
    kinds = np.where(moist > 0, KINDS.index("forest"), KINDS.index("grassland"))
    kinds = np.where((elevation < low) & (fields > 0.4), KINDS.index("cropland"), kinds)
    kinds = np.where((towns > 1.5) & (elevation < high), KINDS.index("built"), kinds)
    kinds = np.where(fires > 1.4, KINDS.index("burned"), kinds)
    kinds = np.where(elevation > high, KINDS.index("bare"), kinds)
    return np.where(elevation < water, KINDS.index("water"), kinds)


def smooth_noise(chance: np.random.Generator, side: int, smoothness: float) -> NDArray[np.float64]:
    """Noise with an amplitude proportional to frequency to the power -`smoothness`: float64 `[side, side]`, mean 0, standard
    deviation 1."""
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    damping = np.maximum(np.hypot(rows, columns), 2 / side) ** smoothness
    noise = np.fft.irfft2(np.fft.rfft2(chance.standard_normal((side, side))) / damping, (side, side))
    return (noise - noise.mean()) / noise.std()


def write_demo_scene(folder: Path, seed: int = 0, side: int = SIDE) -> tuple[Path, Path, Path]:
    """Write `S2.tif`, `S1.tif` and `DEM.tif` to a folder, which is created.

    Raises:
        MissingExtra: rasterio is not installed.
    """
    try:
        import_module("rasterio")
    except ModuleNotFoundError as error:
        raise MissingExtra("rasterio", "geo") from error
    bands = demo_bands(seed, side)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "S2.tif", folder / "S1.tif", folder / "DEM.tif"
    optical = np.stack([np.rint(bands[name] * 1e4) for name in OPTICAL]).astype(np.uint16)
    write(paths[0], optical, METRES_PER_PIXEL, tuple(OPTICAL.values()), nodata=0, scale=1e-4)
    radar = np.stack([half(bands[name])[:, : int(side / 2 * RADAR_COVERS)] for name in RADAR])
    write(paths[1], radar, 2 * METRES_PER_PIXEL, tuple(RADAR.values()), nodata=-9999, unit="dB")
    write(paths[2], half(half(bands["elevation"]))[None].astype(np.int16), 4 * METRES_PER_PIXEL, ("DEM",), -9999, "m")
    to_degrees(paths[2])
    return paths


def half(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means over 2×2 pixels."""
    rows, columns = values.shape[0] // 2, values.shape[1] // 2
    blocks = np.reshape(values[: 2 * rows, : 2 * columns], (rows, 2, columns, 2))
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)


def write(
    path: Path,
    values: NDArray[Any],
    spacing: float,
    names: tuple[str, ...],
    nodata: float,
    unit: str = "",
    scale: float = 1.0,
) -> None:
    """Write a GeoTIFF of `[bands, H, W]` in UTM with a pixel spacing of `spacing` metres."""
    rasterio: Any = import_module("rasterio")
    count, height, width = values.shape
    place = rasterio.transform.from_origin(*ORIGIN, spacing, spacing)
    shape: dict[str, object] = {"width": width, "height": height, "count": count, "dtype": str(values.dtype)}
    with rasterio.open(
        path, "w", driver="GTiff", crs=UTM, transform=place, nodata=nodata, compress="deflate", **shape
    ) as raster:
        raster.write(values)
        raster.descriptions = names
        raster.scales = (scale,) * count
        if unit:
            raster.units = (unit,) * count


def to_degrees(path: Path) -> None:
    """Warp a raster to longitude and latitude (WGS 84), in place."""
    rasterio: Any = import_module("rasterio")
    vrt: Any = import_module("rasterio.vrt")
    how = {"crs": "EPSG:4326", "resampling": import_module("rasterio.enums").Resampling.bilinear}
    with rasterio.open(path) as raster, vrt.WarpedVRT(raster, nodata=raster.nodata, **how) as warped:
        values, profile, names, units = warped.read(), warped.profile, raster.descriptions, raster.units
    with rasterio.open(path, "w", **profile | {"driver": "GTiff", "compress": "deflate"}) as raster:
        raster.write(values)
        raster.descriptions, raster.units = names, units


if __name__ == "__main__":
    for written in write_demo_scene(Path(sys.argv[1] if len(sys.argv) > 1 else "demo")):
        print(written)
