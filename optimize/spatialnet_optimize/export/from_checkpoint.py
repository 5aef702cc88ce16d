"""From a checkpoint to a portable bundle: export, compare with torch on real images, add golden frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from spatialnet_edge.bundle.reader import Bundle
from spatialnet_edge.core.errors import DataRefused, MissingExtra
from spatialnet_edge.core.spec import InputSpec
from spatialnet_optimize.build.bundle_writer import TOOL, now, portable_bundle
from spatialnet_optimize.evaluation.metrics import decode_images, pictures
from spatialnet_optimize.quantization.int8_calibration import spread
from spatialnet_optimize.shipped_samples import shipped_samples
from spatialnet_training.data.labelled_dataset import open_labelled
from spatialnet_training.networks.checkpoint_paths import run_name

GOLDEN_FRAMES, LEAST = 12, 8


def export_checkpoint(checkpoint: Path, output: Path, golden: Path | None, serial: int = 1) -> Bundle:
    """Write the portable FP32 bundle of a student checkpoint.

    Args:
        golden: at least eight real images for the golden frames: a folder, or a zip or table of labelled images; None: the
            shipped samples.

    Raises:
        DataRefused: fewer than eight images, or no image has some band group of the model.
        MissingExtra: torch or the exporter is not installed.
        BuildError: the outputs of the graph differ from torch's.
    """
    try:
        from spatialnet_optimize.export.graph import check_parity, export_onnx, reference
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
    provenance = replace(provenance, created=now(), tool=TOOL, source=f"{run_name(checkpoint)} ({provenance.source})")
    return portable_bundle(output, spec, graph, images, answers, provenance, serial)


def golden_images(source: Path | None, spec: InputSpec, count: int = GOLDEN_FRAMES) -> NDArray[np.uint8]:
    """Evenly chosen real images at the model's input size: uint8 `[count, H, W, bands]`.

    Raises:
        DataRefused: fewer than eight images can be decoded, or no image has some band group, which would then not be tested.
    """
    if source is None:
        share = count // len(shipped_samples())
        images = [each for path in shipped_samples() for each in labelled_images(path, spec, share)]
    elif source.is_dir():
        images = pictures(source, spec, count)
    else:
        images = labelled_images(source, spec, count)
    if len(images) < LEAST:
        raise DataRefused(f"{source}: {len(images)} images can be decoded; golden frames need at least {LEAST} real images")
    chosen = np.stack(images)
    ends = np.cumsum([len(group.bands) for group in spec.groups])
    for group, bands in zip(spec.groups, np.split(chosen, ends[:-1], axis=-1), strict=True):
        if not bands.any():
            raise DataRefused(
                f"{source or 'the shipped samples'}: no image has the bands of '{group.name}', so golden frames would "
                f"not test them; give at least {LEAST} images that have them (export --golden, or build --labelled)"
            )
    return chosen


def labelled_images(path: Path, spec: InputSpec, count: int) -> list[NDArray[np.uint8]]:
    """Evenly chosen images of a labelled set."""
    return [*decode_images(spread(open_labelled(path), count), spec).images]
