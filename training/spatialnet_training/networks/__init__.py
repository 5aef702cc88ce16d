"""SpatialNet-ViT and related networks.

Start with `model.py` (backbone, one attention query per head, linear heads), then `backbones.py` and `layers.py`.
`checkpoint.py` writes and reads weights; `transfer.py` starts a network from another one's weights.
"""
