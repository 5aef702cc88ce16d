"""Engines: they compute probabilities from a batch of pixels.

Start with `registry.py` (the `Engine` protocol, and the choice of the best engine of a bundle), then `onnxruntime.py` (the
default on a CPU), `tensorrt_plans.py` and `tensorrt.py` with `devices/` (NVIDIA), and `output_validation.py` (checks every
tensor against the spec).
"""
