"""Engines that show the memory that their weights lie in, so that it can be checked for flipped bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Inspectable(Protocol):
    """What an engine adds when its weights can be inspected.

    Attributes:
        weights: the memory that it computes with, one view a tensor; empty where it was opened without this ability.
    """

    @property
    def weights(self) -> Sequence[memoryview]: ...


def weights_of(engine: object) -> Sequence[memoryview]:
    """The weights of an engine; nothing if it does not show them."""
    return engine.weights if isinstance(engine, Inspectable) else ()
