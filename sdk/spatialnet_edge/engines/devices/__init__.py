"""CUDA devices for engines: host and device memory, one stream, and graphs.

Start with `base.py` (the `Device` protocol), then `registry.py` (the choice of the library), `pycuda.py` and
`cuda_bindings.py` (the two libraries), and `identity.py` (comparison with the device of a plan).
"""
