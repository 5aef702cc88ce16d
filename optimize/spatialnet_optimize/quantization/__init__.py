"""Quantisation and reduced precision of the graph.

Start with `int8.py` (dynamic and static INT8), then `activation_ranges.py` and `int8_calibration.py` (for static INT8),
`reduced_precision.py` (FP16, BF16), `fp8.py`, `modelopt_int8.py` (NVIDIA's quantiser), `int8_qat.py` (quantisation-aware
training), and `sensitivity.py` (the effect of INT8 on each layer).
"""
