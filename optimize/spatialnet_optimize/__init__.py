"""From a trained network to a deployable bundle.

Reading order: `targets` (devices), `export` (network to ONNX graph), `quantization` (variants), `evaluation` (accuracy,
latency, gates), `compilers` (NVIDIA's builders), `build` (the complete build), `report`.
"""
