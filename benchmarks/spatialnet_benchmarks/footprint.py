"""Footprint of the runtime: disk, import time, peak memory while streaming.

make footprint        (a fresh environment with the runtime alone, then `python -m spatialnet_benchmarks.footprint CLIP`)
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from importlib.metadata import distributions

TOOLS = frozenset({"pip", "setuptools", "wheel"})
IMPORT = "import time; a = time.perf_counter(); import {}; print(time.perf_counter() - a)"
STREAM = """
import spatialnet_edge, sys
for _ in spatialnet_edge.stream("builtin:spatialnet-s", sys.argv[1]): pass
print(dict(line.split(":") for line in open("/proc/self/status"))["VmHWM"].split()[0])
"""


def installed_megabytes() -> Counter[str]:
    """Size on disk of every distribution in this environment, by name, compiled Python files included."""
    sizes: Counter[str] = Counter()
    for distribution in distributions():
        name = distribution.metadata["Name"]
        if name not in TOOLS:
            for file in distribution.files or []:
                path = file.locate()
                sizes[name] += path.stat().st_size if path.exists() else 0  # pyright: ignore[reportAttributeAccessIssue]
    return Counter({name: round(size / 1e6) for name, size in sizes.items()})


def output(program: str, *arguments: str) -> float:
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main(clip: str) -> None:
    sizes = installed_megabytes()
    largest = ", ".join(f"{name} {size}" for name, size in sizes.most_common(5))
    print(f"installed: {sum(sizes.values())} MB ({largest})")
    ours, numpy = (min(output(IMPORT.format(name)) for _ in range(9)) for name in ("numpy, spatialnet_edge", "numpy"))
    print(f"import spatialnet_edge: {ours - numpy:.3f} s more than numpy's {numpy:.3f} s")
    print(f"peak resident memory while streaming {clip}: {output(STREAM, clip) / 1000:.0f} MB")


if __name__ == "__main__":
    main(sys.argv[1])
