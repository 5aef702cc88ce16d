"""NVIDIA's builders behind one interface.

Start with `base.py`, then `plan_builder.py` (one plan from one graph), `tensorrt.py` (on the device) and `tensorrt_rtx.py` (on any
Linux computer).
"""
