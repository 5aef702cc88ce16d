"""From a trained network to the portable ONNX graph.

Start with `graph.py` (uint8 pixels in, probabilities out), then `from_checkpoint.py` (export, compare with
torch, add golden frames).
"""
