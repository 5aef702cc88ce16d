"""One of NVIDIA's builders with everything that stays the same from form to form."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from spatialnet_edge.core.atomic_io import write_durably
from spatialnet_optimize.cache_dir import cache_root
from spatialnet_optimize.compilers.plan_builder import (
    AS_USUAL,
    Library,
    Plan,
    PlanOptions,
    Progress,
    build_plan,
    load_library,
    silent,
)


@dataclass(frozen=True, slots=True)
class Compiler:
    """Compiles graphs.

    Attributes:
        options: how plans are built.
        progress: told how far the builder is.
        timings: a file that keeps what the builder measured on this device, so that the next build need not; None keeps nothing.
    """

    library: Library
    options: PlanOptions = AS_USUAL
    progress: Progress = silent
    timings: Path | None = None

    def compile(self, content: bytes, shape: tuple[int, int, int]) -> Plan:
        """Build a plan; as `build_plan`."""
        plan = self._build(content, shape, strip_weights=False)
        if self.timings is not None and plan.timing_cache:
            with suppress(OSError):  # the next build takes longer, that is all
                self.timings.parent.mkdir(parents=True, exist_ok=True)
                write_durably(self.timings, plan.timing_cache)
        return plan

    def without_weights(self, content: bytes, shape: tuple[int, int, int]) -> bytes:
        """The same plan without its weights, which the device puts in from the graph."""
        return self._build(content, shape, strip_weights=True).content

    def _build(self, content: bytes, shape: tuple[int, int, int], strip_weights: bool) -> Plan:
        """With what was measured before: kernels are timed once, and chosen alike with weights and without."""
        known = self.timings.read_bytes() if self.timings is not None and self.timings.is_file() else b""
        options = replace(self.options, timing_cache=known, strip_weights=strip_weights)
        return build_plan(self.library, content, shape, options, self.progress)


def timings_of(library: Library, device: str, compute_capability: str) -> Path:
    """Where the measurements of one device are kept: they are worth nothing on another, or to another release."""
    version = str(load_library(library).__version__)
    name = "-".join((library.module, version, compute_capability, device))
    return cache_root() / "timings" / f"{''.join(c if c.isalnum() or c in '.-' else '_' for c in name)}.cache"
