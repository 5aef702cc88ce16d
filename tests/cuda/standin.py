"""Builds the stand-in of libcuda, for tests on computers without a GPU."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
NOT_SUPPORTED = 801
"""`CUDA_ERROR_NOT_SUPPORTED`, the answer of every function of the driver that the stand-in does not model."""


def pycuda_extension() -> Path | None:
    """pycuda's compiled module; None where pycuda is not installed. Importing it would need a driver already."""
    found = importlib.util.find_spec("pycuda")
    if found is None or found.origin is None:
        return None
    return next(Path(found.origin).parent.glob("_driver*.so"), None)


def build_standin(folder: Path) -> Path:
    """Compile `libcuda.c` as `libcuda.so.1` into a folder, which then goes to LD_LIBRARY_PATH.

    pycuda wants every function that it knows when it is loaded, so those that the stand-in lacks are added as refusals.
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
    """The C compiler's path; empty where there is none."""
    return shutil.which("gcc") or shutil.which("cc") or ""
