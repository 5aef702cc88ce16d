"""Compose a checkpoint's licence from its own, its data's and its ancestors'."""

from __future__ import annotations

from collections.abc import Iterable

MADE_OF = "; trained on "


def licence(grant: str, terms: Iterable[str], before: str | None = None) -> str:
    """The licence line of a network: each term once, inherited terms included.

    Args:
        grant: the licence of the weights themselves.
        terms: of this run's images and pretrained weights, such as `AID (for research)`; empty ones are ignored.
        before: the licence line of the initial checkpoint, as written by this function; None without one.
    """
    inherited = before.partition(MADE_OF)[2].split(", ") if before else []
    return grant + MADE_OF + ", ".join(dict.fromkeys(each for each in (*terms, *inherited) if each))
