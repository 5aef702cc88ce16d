"""CUDA devices as an engine needs them: memory on both sides, one stream, and graphs.

Start with `base.py` (the `Device` protocol), then `registry.py` (which library drives the device), `pycuda.py` and
`cuda_bindings.py` (the two that there are), and `identity.py` (is this the device that a plan was built on?).
"""
