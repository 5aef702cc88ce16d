"""The metadata block of a model card for model hubs: YAML between two lines of dashes.

The keys are those of the hub's model card specification (huggingface_hub, docs/hub/model-cards). A
network that was trained on data for research only is not listed under a plain open licence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from spatialnet_edge.core.errors import MissingExtra
from spatialnet_optimize.evaluation.metrics import Score
from spatialnet_training.data.dataset_registry import TERMS
from spatialnet_training.loop.licensing import MADE_OF

RESEARCH = "for research"
"""Text in the terms of a data set that excludes commercial use; see `dataset_registry.TERMS`."""
METRICS = {"accuracy": "accuracy", "macro_f1": "f1", "mean_average_precision": "mean_average_precision"}
"""Our metrics by their names in the hub."""
SPDX = {"Apache-2.0": "apache-2.0", "MIT": "mit"}


def metadata_block(name: str, licence: str, split: str, results: Mapping[str, Sequence[Score]]) -> str:
    """The YAML block with its dashes.

    Args:
        licence: from the bundle's provenance: the grant, and the training data.
        results: data set to the metrics of its heads on `split`.

    Raises:
        MissingExtra: the hub's library is not installed (extra `training`).
    """
    try:
        from huggingface_hub import EvalResult, ModelCardData
    except ModuleNotFoundError as error:
        raise MissingExtra("huggingface_hub", "training") from error
    found = [
        EvalResult(
            task_type="image-classification",
            dataset_type=data_set,
            dataset_name=TERMS.get(data_set, data_set).partition(" (")[0],
            dataset_split=split,
            metric_type=METRICS[key],
            metric_name=f"{key} of {each.head}",
            metric_value=round(each.metrics[key], 4),
        )
        for data_set, scores in results.items()
        for each in scores
        for key in METRICS
        if key in each.metrics
    ]
    data = ModelCardData(
        model_name=name,
        library_name="spatialnet-edge",
        pipeline_tag="image-classification",
        tags=["remote-sensing", "earth-observation", "drone", "satellite", "onnx"],
        datasets=sorted(results),
        metrics=sorted({result.metric_type for result in found}),
        eval_results=found,
        **licence_fields(licence),
    )
    return f"---\n{data.to_yaml().strip()}\n---\n"


def licence_fields(licence: str) -> dict[str, Any]:
    """The field `license`; if the training data restrict it, `other` with a descriptive name."""
    grant, _, data = licence.partition(MADE_OF)
    if RESEARCH in data:
        return {"license": "other", "license_name": f"{SPDX.get(grant, grant)}-weights-trained-on-research-data"}
    return {"license": SPDX.get(grant, "other")}


def commercial_use(licence: str) -> str:
    """The card's answer to "may I use it commercially?"."""
    grant, _, data = licence.partition(MADE_OF)
    parts = [each.rpartition(": ")[2] for each in re.split("[,;] ", data) if each]
    research = dict.fromkeys(each.partition(" (")[0] for each in parts if RESEARCH in each)
    copyleft = [each for each in parts if "GPL" in each]
    begun = [each for each in parts if each.startswith("begun with")]
    lines = [f"The weights are licensed to you under {grant}."]
    if research:
        lines.append(
            f"Some of the training images are for research only, according to their publishers: {', '.join(research)}. Whether "
            f"that restricts a network trained on them is not settled law. For a commercial product, ask a lawyer, or train on "
            f"data that you may use: `spatialnet-edge train --data MY_IMAGES --start scratch`."
        )
    lines += [
        f"Unlabelled training images: {each}. The weights contain no image. If you must avoid such sources, use another model."
        for each in copyleft
    ]
    if begun:
        lines.append(f"The network has {'; '.join(begun)}. ImageNet's own images are for non-commercial research.")
    else:
        lines.append("No weight comes from ImageNet or from another pretrained network.")
    return "\n".join(f"- {line}" for line in lines)
