"""From a checkpoint to a portable bundle: export, compare with torch on real images, add golden frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from spatialnet_edge.bundle.reader import Bundle
from spatialnet_edge.core.bands import compose, present_groups, quantise
from spatialnet_edge.core.errors import DataRefused, MissingExtra
from spatialnet_edge.core.frames import preprocess
from spatialnet_edge.core.spec import InputSpec
from spatialnet_edge.sources.demo_scene import demo_bands
from spatialnet_optimize.build.bundle_writer import TOOL, now, portable_bundle
from spatialnet_optimize.evaluation.metrics import decode_images, pictures
from spatialnet_optimize.quantization.int8_calibration import spread
from spatialnet_optimize.shipped_samples import shipped_samples
from spatialnet_training.data.labelled_dataset import open_labelled
from spatialnet_training.networks.checkpoint_paths import run_name

GOLDEN_FRAMES, LEAST, DEMO_TILES = 12, 8, 2


def export_checkpoint(checkpoint: Path, output: Path, golden: Sequence[Path], serial: int = 1, half: bool = False) -> Bundle:
    """Write the portable FP32 bundle of a student checkpoint.

    Args:
        half: store large weights as float16; see `half_weights.py`.
        golden: at least eight real images for the golden frames: folders, or zips or tables of labelled images; empty: the
            shipped samples. Tiles of a generated scene test the band groups that no image has.

    Raises:
        DataRefused: fewer than eight images, or no image has some band group of the model.
        MissingExtra: torch or the exporter is not installed.
        BuildError: the outputs of the graph differ from torch's, or float16 weights change a label.
    """
    try:
        from spatialnet_optimize.export.graph import check_parity, export_onnx, reference
        from spatialnet_optimize.export.half_weights import rounded
        from spatialnet_optimize.export.metadata import with_metadata
        from spatialnet_training.networks.checkpoint import load_network
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors", "onnxscript", "timm", "lightning_fabric"):
            raise
        raise MissingExtra(error.name, "training") from error
    network, spec, provenance = load_network(checkpoint)
    images = golden_images(golden, spec.input)
    graph = with_metadata(export_onnx(network, spec), spec, provenance.licence)
    answers = reference(network, spec, images)
    check_parity(graph, spec, answers, images)
    if half:
        graph, answers = rounded(graph, spec, answers, images)
    provenance = replace(provenance, created=now(), tool=TOOL, source=f"{run_name(checkpoint)} ({provenance.source})")
    return portable_bundle(output, spec, graph, images, answers, provenance, serial)


def golden_images(sources: Sequence[Path], spec: InputSpec, count: int = GOLDEN_FRAMES) -> NDArray[np.uint8]:
    """Evenly chosen real images at the model's input size: uint8 `[N, H, W, bands]`, at least `count` if available.

    For band groups that none of these images has, tiles of the generated scene (`sources.demo_scene`) are added.

    Args:
        sources: folders, zips or tables; empty for the shipped samples.

    Raises:
        DataRefused: fewer than eight images can be decoded, or no image has some band group, which would then not be tested.
    """
    paths = sources or shipped_samples()
    share = -(-count // len(paths))
    images = [each for path in paths for each in images_of(path, spec, share)]
    named = ", ".join(map(str, sources)) or "the shipped samples"
    if len(images) < LEAST:
        raise DataRefused(f"{named}: {len(images)} images can be decoded; golden frames need at least {LEAST} real images")
    if absent_groups(np.stack(images), spec):
        images += demo_tiles(spec, DEMO_TILES)
    chosen = np.stack(images)
    if absent := absent_groups(chosen, spec):
        raise DataRefused(
            f"{named}: no image has the bands of '{absent[0]}', so golden frames would "
            f"not test them; give at least {LEAST} images that have them (export --golden, or build --labelled)"
        )
    return chosen


def absent_groups(images: NDArray[np.uint8], spec: InputSpec) -> list[str]:
    """The groups that none of the images has."""
    present = present_groups(images, spec.groups)
    return [group.name for index, group in enumerate(spec.groups) if not present[:, index].any()]


def demo_tiles(spec: InputSpec, count: int) -> list[NDArray[np.uint8]]:
    """Tiles of the generated scene at the model's input, with every band that it has."""
    levels = {name: quantise(values, name) for name, values in demo_bands().items()}
    if not any(band in levels for group in spec.groups for band in group.bands):
        return []
    scene = compose(levels, spec.groups)
    side = min(spec.height, scene.shape[0] // 4)
    places = [
        (row, column) for row in range(0, scene.shape[0] - side, side) for column in range(0, scene.shape[1] - side, side)
    ]
    chosen = np.linspace(0, len(places) - 1, count).astype(int)
    return [
        preprocess(np.ascontiguousarray(scene[row : row + side, column : column + side]), spec)
        for row, column in (places[index] for index in chosen)
    ]


def images_of(path: Path, spec: InputSpec, count: int) -> list[NDArray[np.uint8]]:
    """Evenly chosen images of a folder of any, a zip or a table."""
    return pictures(path, spec, count) if path.is_dir() else labelled_images(path, spec, count)


def labelled_images(path: Path, spec: InputSpec, count: int) -> list[NDArray[np.uint8]]:
    """Evenly chosen images of a labelled set."""
    return [*decode_images(spread(open_labelled(path), count), spec).images]
