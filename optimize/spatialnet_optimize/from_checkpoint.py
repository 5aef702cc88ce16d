"""From a checkpoint to a portable bundle: export, prove equal to torch on real images, add golden vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from spatialnet_edge.bundle import Bundle
from spatialnet_edge.errors import DataRefused, MissingExtra
from spatialnet_edge.labelled import open_labelled
from spatialnet_edge.spec import InputSpec
from spatialnet_optimize.build import shipped_samples
from spatialnet_optimize.measure import decode_images, pictures
from spatialnet_optimize.package import TOOL, now, portable_bundle

GOLDEN_FRAMES = 12


def export_checkpoint(checkpoint: Path, output: Path, golden: Path | None, serial: int = 1) -> Bundle:
    """Write the portable FP32 bundle of a student checkpoint.

    Args:
        golden: a folder of at least eight real images for the golden vectors; None for the shipped samples.

    Raises:
        MissingExtra: torch or the exporter is not installed.
        BuildError: the graph does not answer as torch does.
    """
    try:
        from spatialnet_optimize.export import check_parity, export_onnx, reference
        from spatialnet_training.checkpoint import load_network
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "onnxscript", "timm", "lightning_fabric"):
            raise
        raise MissingExtra(error.name, "training") from error
    network, spec, provenance = load_network(checkpoint)
    images = golden_images(golden, spec.input)
    graph = export_onnx(network, spec)
    answers = reference(network, spec, images)
    check_parity(graph, spec, answers, images)
    provenance = replace(provenance, created=now(), tool=TOOL, source=f"{checkpoint.name} ({provenance.source})")
    return portable_bundle(output, spec, graph, images, answers, provenance, serial)


def golden_images(folder: Path | None, spec: InputSpec, count: int = GOLDEN_FRAMES) -> NDArray[np.uint8]:
    """Evenly chosen real images at the model's input size: uint8 `[count, H, W, 3]`.

    Raises:
        DataRefused: fewer than eight images can be decoded.
    """
    if folder is None:
        labelled = [open_labelled(path) for path in shipped_samples()]
        decoded = [decode_images(each, spec).images for each in labelled]
        pool = [images[np.linspace(0, len(images) - 1, count // len(decoded)).astype(int)] for images in decoded]
        return np.concatenate(pool)
    images = pictures(folder, spec, count)
    if len(images) < 8:
        raise DataRefused(f"{folder}: {len(images)} images can be decoded; golden vectors need at least 8 real images")
    return np.stack(images)
