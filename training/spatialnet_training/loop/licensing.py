"""Compose a checkpoint's licence from its own, its data's and its ancestors'."""

from __future__ import annotations

from collections.abc import Iterable

MADE_OF = "; trained on "


def licence(grant: str, terms: Iterable[str], before: str | None = None) -> str:
    """One line for a network's provenance, with each term once; inherited terms are kept.

    Args:
        grant: the licence of the weights themselves.
        terms: of this run's images and pretrained weights, such as `AID (for research)`; empty ones are left out.
        before: the licence of the checkpoint that the run started from, as this function wrote it; None for no such checkpoint.
    """
    inherited = before.partition(MADE_OF)[2].split(", ") if before else []
    return grant + MADE_OF + ", ".join(dict.fromkeys(each for each in (*terms, *inherited) if each))
