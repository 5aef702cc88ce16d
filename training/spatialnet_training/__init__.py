"""Training of SpatialNet-ViT: data, model, losses, the loop, calibration.

Reading order: `taxonomy` (what the labels mean), `datasets` (images and partial labels), `augment`, `model`,
`losses`, `trainer`, `calibration`, `checkpoint`.
"""
