"""Compilers: from the variants of a model to the engine that goes into a bundle.

Start with `base.py` (the `Compiler` protocol) and `registry.py` (which compiler serves which target). `onnxruntime.py` runs graphs
as they are, `tensorrt.py` compiles on the device, `tensorrt_host.py` prepares for it, `tensorrt_rtx.py` compiles on any Linux
computer. `plan_builder.py` builds one plan from one graph.
"""
