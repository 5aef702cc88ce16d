"""Predicted latency against published measurements: `python -m spatialnet_benchmarks.published_costs`.

Sources: ViT-B/16 and MobileNetV2 on an Orin Nano, EfficientViT-B1 on an AGX Orin (its README); batch 1, 224×224, FP16, TensorRT.
"""

from __future__ import annotations

import torch
from rich.table import Table

from spatialnet_edge.cli.printer import printer
from spatialnet_optimize.targets.catalogue import load_targets
from spatialnet_optimize.targets.roofline import BAND, layers, predict
from spatialnet_training.networks.timm_backbone import import_timm

PUBLISHED = (
    ("vit_base_patch16_224", "orin-nano", 5.68),
    ("mobilenetv2_100", "orin-nano", 0.85),
    ("efficientvit_b1", "agx-orin", 1.48),
)
"""timm's name, target, milliseconds."""


def main() -> None:
    targets = load_targets()
    table = Table("network", "target", "published", "predicted", "ratio", title=f"the band is a factor of {BAND:g} either way")
    for name, target, published in PUBLISHED:
        network = import_timm().create_model(name).eval()
        program = torch.onnx.export(network, (torch.zeros(1, 3, 224, 224),), dynamo=True, opset_version=20, verbose=False)
        assert program is not None
        found = predict(layers(program.model_proto.SerializeToString()), target, targets[target], "fp16")
        table.add_row(name, target, f"{published} ms", f"{found.ms:.2f} ms", f"{found.ms / published:.2f}")
    printer().print(table)


if __name__ == "__main__":
    main()
