"""Under which licence weights may be used: whose word that is, and what they, and those that they began as, were made of."""

from __future__ import annotations

from collections.abc import Iterable

MADE_OF = "; trained on "


def licence(grant: str, terms: Iterable[str], before: str = "") -> str:
    """One line for a network's provenance; each of the terms once, and none of what it inherits is lost.

    Args:
        grant: the licence of the weights themselves.
        terms: of the images and weights that this run took, such as `AID (for research)`; empty ones are left out.
        before: the licence of the checkpoint that it started from, as this function wrote it.
    """
    inherited = before.partition(MADE_OF)[2].split(", ")
    return grant + MADE_OF + ", ".join(dict.fromkeys(each for each in (*terms, *inherited) if each))
