"""Compilers: from the variants of a model to the engine in a bundle.

Start with `base.py` (the `Compiler` protocol) and `registry.py` (the compiler of each target). `onnxruntime.py` runs graphs
directly, `tensorrt.py` compiles on the device, `tensorrt_host.py` prepares for it, `tensorrt_rtx.py` compiles on any Linux
computer. `plan_builder.py` builds one plan from one graph.
"""
