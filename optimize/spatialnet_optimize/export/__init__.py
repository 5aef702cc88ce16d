"""From a trained network to the portable ONNX graph.

Start with `graph.py` (the deployed graph), then `from_checkpoint.py` (export, compare with
torch, add golden frames).
"""
