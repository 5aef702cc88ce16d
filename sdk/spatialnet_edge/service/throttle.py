"""Throttle: classify fewer frames when the computer is too hot or low on power."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import final

from spatialnet_edge.core.frames import Frame
from spatialnet_edge.service.config import LimitsSection

SYSTEM = Path("/sys/class")
LOOK_S = 2.0
RECOVERED = 5.0
"""Per cent above the limit from which a battery counts as charged again."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Conditions of the computer: the hottest zone in °C and the weakest battery in per cent; None if unknown."""

    hottest_c: float | None
    battery: float | None


def conditions(system: Path = SYSTEM) -> Conditions:
    """Read the conditions from the kernel (sysfs: `thermal_zone*/temp` in thousandths of a degree,
    `power_supply/*/capacity`)."""
    temperatures = _numbers(system / "thermal", "thermal_zone*/temp")
    batteries = _numbers(system / "power_supply", "*/capacity")
    return Conditions(max(temperatures) / 1000 if temperatures else None, min(batteries) if batteries else None)


def _numbers(folder: Path, pattern: str) -> list[float]:
    found: list[float] = []
    for path in folder.glob(pattern):
        try:
            found.append(float(path.read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue  # reading a disabled zone fails
    return found


@final
class Throttle:
    """Decides which frames to skip.

    Args:
        report: called with `hot`, `hot_over`, `low_power` and `low_power_over`.

    Attributes:
        seen: the conditions at the last check.
    """

    def __init__(
        self, limits: LimitsSection, report: Callable[[str, str], None], look: Callable[[], Conditions] = conditions
    ) -> None:
        self.seen = look()
        self._limits = limits
        self._report = report
        self._look = look
        self._hot = self._weak = False
        self._looked = 0.0
        self._next: dict[str, float] = {}
        self._lock = Lock()

    @property
    def slowed(self) -> bool:
        return self._hot or self._weak

    def watch(self) -> None:
        """Check the conditions again if some seconds have passed."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked < LOOK_S:
                return
            self._looked = now
        self.seen = self._look()
        celsius, battery, limits = self.seen.hottest_c, self.seen.battery, self._limits
        if celsius is not None:
            ends = celsius < limits.cool_c
            self._hot = self._changed(self._hot, celsius >= limits.hot_c, ends, "hot", f"{celsius:.0f} °C")
        if battery is not None:
            ends = battery >= limits.low_battery + RECOVERED
            self._weak = self._changed(self._weak, battery < limits.low_battery, ends, "low_power", f"battery {battery:.0f} %")

    def admit(self, frame: Frame) -> str:
        """`degraded` for a frame to skip, otherwise empty."""
        if not self.slowed:
            return ""
        with self._lock:
            now = time.monotonic()
            if now < self._next.get(frame.source, 0.0):
                return "degraded"
            self._next[frame.source] = now + 1 / self._limits.slow_hz
        return ""

    def _changed(self, was: bool, begins: bool, ends: bool, name: str, detail: str) -> bool:
        now = begins or (was and not ends)
        if now != was:
            rate = f"at most {self._limits.slow_hz:g} frames per second" if now else "full rate again"
            self._report(name if now else f"{name}_over", f"{detail}: {rate}")
        return now
