"""Training of SpatialNet-ViT: data, networks, losses, training loop, calibration.

Reading order: `data` (taxonomy, data sets, augmentation), `networks`, `losses`, `distillation`, `loop`, `studies`.
"""
