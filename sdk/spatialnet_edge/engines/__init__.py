"""What turns a batch of pixels into probabilities.

Start with `registry.py` (the `Engine` protocol, and how the best engine of a bundle is chosen), then `onnxruntime.py` (the
default on a CPU), `tensorrt_plans.py` and `tensorrt.py` with `devices/` (NVIDIA), and `output_validation.py` (every
tensor against the spec).
"""
