"""Energy per frame, measured by NVML, RAPL or a Jetson's tegrastats.

Each meter counts joules. It is read before and after the work; the difference is divided by the number of frames. The figure
is the energy of the whole package, board or module, other work included.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, final

RAPL = Path("/sys/class/powercap")
TEGRASTATS_MS = 100
MEASURED_S = 5.0
BOARD_POWER = re.compile(r"(?:VDD_IN|POM_5V_IN) (\d+)(?:mW)?/")
"""The power rail of the whole module in milliwatts, where tegrastats prints one (Orin Nano and NX, Xavier NX, Nano, TX2). An
AGX prints single rails only, so its module power is not measurable."""


class Meter(Protocol):
    """Counts energy.

    Attributes:
        of: what it measures, in words.
    """

    of: str

    def joules(self) -> float: ...

    def close(self) -> None: ...


@final
class Rapl:
    """The processor packages (Linux powercap, driver intel-rapl, also on AMD)."""

    of = "the processor packages (RAPL)"

    def __init__(self) -> None:
        self._zones = sorted(RAPL.glob("intel-rapl:?"))
        if not self._zones:
            raise OSError("no RAPL on this computer")
        self._ranges = [microjoules(zone / "max_energy_range_uj") for zone in self._zones]
        self._last = self._read()
        self._total = 0

    def joules(self) -> float:
        now = self._read()
        # The counters start again at their range, which a busy package passes within minutes.
        self._total += sum((new - old) % (most + 1) for new, old, most in zip(now, self._last, self._ranges, strict=True))
        self._last = now
        return self._total / 1e6

    def _read(self) -> list[int]:
        return [microjoules(zone / "energy_uj") for zone in self._zones]

    def close(self) -> None:
        pass


def microjoules(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))


def first_gpu() -> tuple[Any, Any]:
    """NVML, started, and its handle of the first GPU."""
    nvml: Any = import_module("pynvml")
    nvml.nvmlInit()
    return nvml, nvml.nvmlDeviceGetHandleByIndex(0)


@final
class Nvml:
    """The first GPU's board, since its driver was loaded (`nvmlDeviceGetTotalEnergyConsumption`, Volta and later)."""

    of = "the GPU's board (NVML)"

    def __init__(self) -> None:
        self._nvml, self._device = first_gpu()
        self.joules()

    def joules(self) -> float:
        return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._device) / 1e3

    def close(self) -> None:
        self._nvml.nvmlShutdown()


@final
class Tegrastats:
    """A Jetson's module: power sampled ten times per second and integrated."""

    of = "the whole module (tegrastats)"

    def __init__(self) -> None:
        program = shutil.which("tegrastats")
        if program is None:
            raise OSError("no tegrastats on this computer")
        self._joules = 0.0
        self._process = subprocess.Popen(
            [program, "--interval", str(TEGRASTATS_MS)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        if not self._first.wait(10 * TEGRASTATS_MS / 1e3):
            self.close()
            raise OSError("tegrastats prints no power of the whole module")

    def _read(self) -> None:
        assert self._process.stdout is not None
        before = time.monotonic()
        for line in self._process.stdout:
            found = BOARD_POWER.search(line)
            if found is not None:
                now = time.monotonic()
                self._joules += int(found[1]) / 1e3 * (now - before)
                before = now
                self._first.set()

    def joules(self) -> float:
        return self._joules

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(5)
        self._thread.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()


METERS = (Nvml, Tegrastats, Rapl)


@contextmanager
def open_meters() -> Generator[list[Meter], None, None]:
    """Every meter that works on this computer."""
    found: list[Meter] = []
    for make in METERS:
        try:
            found.append(make())
        except Exception:  # NVML raises its own errors, a missing file raises OSError
            continue
    try:
        yield found
    finally:
        for meter in found:
            meter.close()


def energy_a_frame(work: Callable[[], int], seconds: float = MEASURED_S) -> dict[str, float]:
    """Joules per frame, for every meter of this device.

    Args:
        work: called repeatedly; returns the number of frames that it processed.
        seconds: minimum duration; tegrastats prints ten values per second.
    """
    with open_meters() as meters:
        if not meters:
            return {}
        before = [meter.joules() for meter in meters]
        start, frames = time.monotonic(), 0
        while time.monotonic() - start < seconds:
            frames += work()
        return {meter.of: (meter.joules() - joules) / frames for meter, joules in zip(meters, before, strict=True)}


def in_words(energy: Mapping[str, float] | str) -> str:
    """The energy entry of a `bench` result as text."""
    return energy if isinstance(energy, str) else ", ".join(f"{joules:.3f} J of {of}" for of, joules in energy.items())


def gpu_memory_mb() -> float | None:
    """Memory in use on the first GPU by all processes, in megabytes; None without NVML."""
    try:
        nvml, device = first_gpu()
        return nvml.nvmlDeviceGetMemoryInfo(device).used / 1e6
    except Exception:  # as above
        return None
