"""From a trained network to the bundle that flies.

Reading order: `targets` (what can be built for), `export` (network to graph), `quantise` (candidates), `measure` (accuracy,
agreement, latency), `gates` (which candidates pass, which one wins), `compile_rtx` (NVIDIA's builder), `build` (all of it).
"""
