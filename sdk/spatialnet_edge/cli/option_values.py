"""Values of command-line options."""

from __future__ import annotations


def names(text: str) -> tuple[str, ...]:
    """Split comma-separated names and strip blanks."""
    return tuple(each.strip() for each in text.split(",") if each.strip())
