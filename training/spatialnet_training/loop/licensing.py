"""Compose a checkpoint's licence from its own, its data's and its ancestors'."""

from __future__ import annotations

import re
from collections.abc import Iterable

MADE_OF = "; trained on "
KNOWN_MADE_OF = "; for 'known' alone: "
OUTSIDE_BRACKETS = re.compile(r", (?![^()]*\))")


def licence(grant: str, terms: Iterable[str], before: str | None = None) -> str:
    """The licence line of a network: each term once, inherited terms included.

    Args:
        grant: the licence of the weights themselves.
        terms: of this run's images and pretrained weights, such as `AID (for research)`; empty ones are ignored.
        before: the licence line of the initial checkpoint, as written by this module; None without one.
    """
    _, inherited, known = parts(before or "")
    return composed(grant, [*single(terms), *inherited], known)


def with_known(before: str, terms: Iterable[str]) -> str:
    """The licence line after the output `known` was trained.

    Args:
        before: the licence line of the network, as written by this module.
        terms: of the images that only `known` was trained on.
    """
    grant, inherited, known = parts(before)
    return composed(grant, inherited, [*known, *single(terms)])


def parts(line: str) -> tuple[str, list[str], list[str]]:
    """Split a licence line into the grant, the terms of the network's data, and those of `known` alone."""
    network, *known = line.split(KNOWN_MADE_OF)
    grant, _, data = network.partition(MADE_OF)
    return grant, single([data]), single(known)


def single(terms: Iterable[str]) -> list[str]:
    """The single terms: a comma separates them, except in brackets."""
    return [each for term in terms for each in OUTSIDE_BRACKETS.split(term) if each]


def composed(grant: str, data: Iterable[str], known: Iterable[str]) -> str:
    """The licence line, each term once."""
    kinds = ((MADE_OF, dict.fromkeys(data)), (KNOWN_MADE_OF, dict.fromkeys(known)))
    return grant + "".join(begin + ", ".join(terms) for begin, terms in kinds if terms)
