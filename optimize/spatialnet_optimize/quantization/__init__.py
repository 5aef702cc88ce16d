"""The same graph in fewer bits.

Start with `int8.py` (dynamic and static INT8), then `activation_ranges.py` and `int8_calibration.py` (what static INT8 needs),
`reduced_precision.py` (FP16, BF16), `fp8.py`, and `sensitivity.py` (which layers INT8 hurts).
"""
