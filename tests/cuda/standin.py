"""Builds the stand-in of libcuda, for tests on computers without a GPU."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
NOT_SUPPORTED = 801
"""`CUDA_ERROR_NOT_SUPPORTED`, returned by every driver function that the stand-in does not implement."""


def pycuda_extension() -> Path | None:
    """pycuda's compiled module; None if pycuda is not installed. It is not imported, because that needs a driver."""
    found = importlib.util.find_spec("pycuda")
    if found is None or found.origin is None:
        return None
    return next(Path(found.origin).parent.glob("_driver*.so"), None)


def build_standin(folder: Path) -> Path:
    """Compile `libcuda.c` to `libcuda.so.1` in a folder for LD_LIBRARY_PATH.

    pycuda needs all of its driver functions at load, so missing ones are added; they return an error.
    """
    source = (HERE / "libcuda.c").read_text(encoding="utf-8")
    modelled = set(re.findall(r"^int (cu\w+)\(", source, re.MULTILINE))
    wanted: set[str] = set()
    if (extension := pycuda_extension()) is not None:
        symbols = subprocess.run(
            ["nm", "-D", "--undefined-only", extension], check=True, capture_output=True, text=True
        ).stdout
        wanted = set(re.findall(r"\bU (cu[A-Z]\w*)", symbols))
    refusals = "".join(f"int {name}(void) {{ return {NOT_SUPPORTED}; }}\n" for name in sorted(wanted - modelled))
    written = folder / "libcuda.c"
    written.write_text(source + refusals, encoding="utf-8")
    flags = ["-Wall", "-Werror", "-O1", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
    subprocess.run([compiler(), *flags, "-o", folder / "libcuda.so.1", written], check=True)
    return folder


def compiler() -> str:
    """The C compiler's path; empty if there is none."""
    return shutil.which("gcc") or shutil.which("cc") or ""
