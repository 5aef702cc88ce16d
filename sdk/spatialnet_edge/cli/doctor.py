"""`spatialnet-edge doctor`: report what is installed, what works, why the rest does not work, and the command that fixes it."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

from rich.table import Column, Table
from rich.text import Text

from spatialnet_edge.api import load
from spatialnet_edge.bundle.manifest import EngineRecord
from spatialnet_edge.bundle.reader import MODEL
from spatialnet_edge.cli.json_file import json_option, write_json
from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.errors import EngineUnavailable, MissingExtra, SpatialNetError, first_line
from spatialnet_edge.core.hardware_info import cores, power_mode
from spatialnet_edge.core.installation import install_command
from spatialnet_edge.core.output_paths import STANDARD_OUTPUT
from spatialnet_edge.core.plugins import known
from spatialnet_edge.core.printable import printable
from spatialnet_edge.engines.devices.identity import described
from spatialnet_edge.engines.devices.registry import DEVICES, open_device
from spatialnet_edge.engines.registry import BACKENDS, Backend, load_backend
from spatialnet_edge.engines.tensorrt_plans import PlanBackend
from spatialnet_edge.sources import jetson
from spatialnet_edge.sources.gstreamer import load_gstreamer, opencv_has_gstreamer

LIBRARIES = {
    "numpy": "", "onnxruntime": "", "pillow": "", "onnx": "optimize", "scikit-learn": "optimize",
    "tensorrt-rtx-cu13": "rtx", "torch": "training",
}  # fmt: skip
"""Maps a distribution to the extra that installs it; empty for required distributions."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the diagnosis."""

    what: str
    works: bool
    found: str
    mend: str = ""


def doctor(json: Annotated[Path | None, json_option("the diagnosis")] = None) -> None:
    """Report what works on this computer, and how to fix the rest."""
    checks = [*libraries(), opencv(), video_decoding(), gpu(), *backends(), gstreamer(), shipped_model()]
    write_json(json, [asdict(check) for check in checks])
    if json == STANDARD_OUTPUT:
        return
    console = printer()
    console.print(f"Python {sys.version.split()[0]} on {platform.system()} {platform.machine()}, {cores()} cores")
    # Long words are folded, because a truncated command is useless at 80 columns.
    table = Table("", Column("what", no_wrap=True), Column("found", overflow="fold"), box=None, pad_edge=False)
    for check in checks:
        mark = Text("✓", style="green") if check.works else Text("—", style="yellow")
        lines = [Text(printable(check.found, keep="\n"))] if check.found else []
        lines += [Text(f"fix: {printable(check.mend)}", style="cyan")] if check.mend else []
        table.add_row(mark, check.what, Text("\n").join(lines))
    console.print(table)


def libraries() -> list[Check]:
    checks: list[Check] = []
    for name, extra in LIBRARIES.items():
        try:
            checks.append(Check(f"library {name}", True, version(name)))
        except PackageNotFoundError:
            mend = install_command(extra)
            checks.append(Check(f"library {name}", False, "not installed", mend))
    return checks


def opencv() -> Check:
    """OpenCV, checked by import: pip does not list the packages of JetPack and Debian."""
    try:
        import cv2
    except ModuleNotFoundError:
        mend = f"{install_command('opencv')}, or your system's python3-opencv"
        return Check("library cv2", False, "not installed: no cameras, slow resizing", mend)
    except ImportError as error:
        found = f"does not load with NumPy {version('numpy')}: {first_line(error)}"
        return Check("library cv2", False, found, "pip install 'numpy>=1.26,<2' if the system's OpenCV was built for NumPy 1")
    return Check("library cv2", True, cv2.__version__)


def gpu() -> Check:
    """The CUDA device and the Python library used for it."""
    try:
        device = open_device()
    except MissingExtra as error:
        return Check("GPU", False, "not checked: neither pycuda nor cuda-bindings is installed", mend_extra(error))
    except EngineUnavailable as error:
        return Check("GPU", False, str(error))
    device.close()
    mode = f", power mode {name}" if (name := power_mode()) else ""
    through = next(name for name, target in DEVICES.items() if target.endswith(f":{type(device).__name__}"))
    return Check("GPU", True, f"{described(device.identity)}{mode}, through {through}")


def video_decoding() -> Check:
    """Video decoding of recordings and streams, and the hardware decoders found."""
    try:
        from spatialnet_edge.sources.ffmpeg import hardware, version_of_ffmpeg
    except ImportError as error:
        found = f"no recordings, no network streams: {first_line(error)}"
        return Check("video decoding", False, found, install_command("video"))
    decoders = hardware()
    where = f"in hardware ({', '.join(decoders)}) where the codec allows, else" if decoders else "in"
    return Check("video decoding", True, f"{version_of_ffmpeg()}, {where} software")


def backends() -> list[Check]:
    return [backend_check(name) for name in known("backends", BACKENDS)]


def backend_check(name: str) -> Check:
    what = f"backend {name}"
    try:
        backend = load_backend(name)
        found, path = "runs", MODEL
        if isinstance(backend, PlanBackend):
            found = f"runs: {backend.library.title} {backend.library_version}"
            path = "engines/any.plan"
        why = backend.refuses(EngineRecord(path=path, backend=name, precision="fp32", library_version=plan_version(backend)))
    except MissingExtra as error:
        return Check(what, False, f"'{error.library}' is not installed", mend_extra(error))
    except SpatialNetError as error:
        return Check(what, False, str(error))
    except Exception as error:  # an installed but broken library is also a finding
        return Check(what, False, f"does not load: {first_line(error)}", f"reinstall the library behind the backend '{name}'")
    return Check(what, not why, why or found)


def plan_version(backend: Backend) -> str:
    """The library release that a backend's plans require; empty for a backend without plans."""
    return backend.library_version if isinstance(backend, PlanBackend) else ""


def mend_extra(error: MissingExtra) -> str:
    return install_command(error.extra)


def gstreamer() -> Check:
    if load_gstreamer() is not None:
        return Check("source gst:", True, f"GStreamer through PyGObject{jetson_elements()}")
    if opencv_has_gstreamer():
        return Check("source gst:", True, "GStreamer through OpenCV")
    return Check(
        "source gst:", False, "GStreamer not found",
        "apt install python3-gi gstreamer1.0-plugins-base; python3 -m venv --system-site-packages",
    )  # fmt: skip


def jetson_elements() -> str:
    """What a Jetson's elements of GStreamer are used for; empty on another computer."""
    uses = [f"csi: with {jetson.CAMERA}"] if jetson.has_elements(jetson.CAMERA, jetson.CONVERTER) else []
    uses += [f"rtsp: decoded by {jetson.DECODER}"] if jetson.decodes_streams() else []
    return "".join(f"; {use}" for use in uses)


def shipped_model() -> Check:
    """Verify the shipped model and run its golden test."""
    try:
        with load("builtin:spatialnet-s") as model:
            found = f"golden test passed, difference {model.golden.difference:.1e} on {model.opened.record.backend}"
            return Check("model builtin:spatialnet-s", True, found)
    except SpatialNetError as error:
        return Check("model builtin:spatialnet-s", False, str(error), f"install it again: {install_command()}")
