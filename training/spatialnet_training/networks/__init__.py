"""SpatialNet-ViT and its relatives.

Start with `model.py` (backbone, one attention query for each head, linear heads), then `backbones.py` and `layers.py`.
`checkpoint.py` writes and reads weights; `transfer.py` starts a network from another one's weights.
"""
