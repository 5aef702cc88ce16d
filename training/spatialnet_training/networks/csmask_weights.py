"""Weights for a multispectral teacher from the package `ukis-csmask` (Apache-2.0, German Aerospace Center): the EfficientNet-B4
encoders of its cloud networks, trained on Sentinel-2 with blue, green, red, near infrared and two bands of short-wave infrared.

    pip download --no-deps ukis-csmask==1.0.0 && unzip ukis_csmask-1.0.0-*.whl
    python -m spatialnet_training.networks.csmask_weights ukis_csmask/model_6b_l2a.onnx csmask.pth
    spatialnet-edge train --config spatialnet-ms --backbone timm-trunk:tf_efficientnet_b4 --start scratch \\
      --set weights=csmask.pth --set 'groups=["rgb", "nir", "swir"]' --data-root DATA -o runs/csmask

The tensors keep their names in the ONNX file. They are written in timm's order with timm's names. The first convolution is
reordered for our bands and rescaled from the package's normalisation to ours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spatialnet_edge.core.bands import RANGES, band_of
from spatialnet_edge.core.errors import DataRefused
from spatialnet_training.data.augmentation import band_statistics
from spatialnet_training.networks.timm_backbone import import_timm

ENCODER, NETWORK = "model.encoder.", "tf_efficientnet_b4"
ORDERS = {6: ("red", "green", "blue", "nir", "swir_1", "swir_2"), 4: ("red", "green", "blue", "nir")}
"""Band numbers of the groups `rgb`, `nir` and `swir`."""


def converted(model: Path) -> dict[str, Tensor]:
    """Convert the encoder of a network of the package to a state dict of timm's `tf_efficientnet_b4` for our input.

    Args:
        model: `model_6b_l2a.onnx` or another one, with its `.json` in the same folder.

    Raises:
        DataRefused: not one of the package's networks.
    """
    import onnx

    tensors = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(model).graph.initializer}
    theirs = [value for name, value in tensors.items() if name.startswith(ENCODER)]
    statistics: Any = json.loads(model.with_suffix(".json").read_text(encoding="utf-8"))["data"]["dataset_statistics"]
    network = import_timm().create_model(NETWORK, num_classes=0, in_chans=len(statistics["band_names"]))
    left = ("conv_head.", "bn2.")  # after the last stage: the package's encoders have neither
    own = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked") and not k.startswith(left)}
    shapes = [tuple(value.shape) for value in own.values()]
    if [value.shape for value in theirs] != shapes:
        raise DataRefused(
            f"{model}: {len(theirs)} tensors of an encoder; expected the {len(shapes)} of {NETWORK}; give a network of "
            f"ukis-csmask 1.0"
        )
    state = {name: torch.from_numpy(np.array(value, np.float32)) for name, value in zip(own, theirs, strict=True)}
    return network.state_dict() | state | first_layer(state, statistics)


def first_layer(state: Mapping[str, Tensor], statistics: Mapping[str, Any]) -> dict[str, Tensor]:
    """The first convolution for bands in our order and normalisation.

    A band's level is `low + (high - low) * level / 255` in reflectance. The package's input is `(reflectance - mean) /
    deviation`, ours `(level / 255 - mean) / deviation`. The factor is merged into the filters, and the constant into the mean
    of the following batch normalisation. This is exact except for one pixel at the border.
    """
    theirs = [str(band_of(name)) for name in statistics["band_names"]]
    ours = ORDERS[len(theirs)]
    order = [theirs.index(band) for band in ours]
    mean, deviation = (np.array(each, np.float32)[order] for each in statistics["img"])
    gain, shift = rescaling(ours, mean, deviation)
    filters = state["conv_stem.weight"][:, order]
    constant = (filters.sum(dim=(2, 3)) * torch.from_numpy(shift)).sum(dim=1)
    return {
        "conv_stem.weight": filters * torch.from_numpy(gain)[None, :, None, None],
        "bn1.running_mean": state["bn1.running_mean"] - constant,
    }


def rescaling(
    bands: Sequence[str], mean: NDArray[np.float32], deviation: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`gain` and `shift` of each band, so that the package's input is `gain * ours + shift`."""
    our_mean, our_deviation = (each.numpy() / 255 for each in band_statistics(len(bands)))
    low = np.array([RANGES[band].low for band in bands], np.float32)
    span = np.array([RANGES[band].high - RANGES[band].low for band in bands], np.float32)
    gain, shift = span * our_deviation / deviation, (low + span * our_mean - mean) / deviation
    return gain.astype(np.float32), shift.astype(np.float32)


if __name__ == "__main__":
    torch.save(converted(Path(sys.argv[1])), sys.argv[2])
    print(f"{sys.argv[2]}: weights for timm:{NETWORK}")
