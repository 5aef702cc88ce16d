"""Engines with accessible weights, which can be checked for flipped bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Inspectable(Protocol):
    """Protocol of an engine with accessible weights.

    Attributes:
        weights: the memory that the engine reads, one view per tensor; empty if it was not opened as inspectable.
    """

    @property
    def weights(self) -> Sequence[memoryview]: ...


def weights_of(engine: object) -> Sequence[memoryview]:
    """The weights of an engine; empty if they are not accessible."""
    return engine.weights if isinstance(engine, Inspectable) else ()
