"""Tables that stay legible on a narrow terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Column, Table


def folded_table(headers: Sequence[str], title: str) -> Table:
    """A table with folded instead of truncated cells on a narrow terminal."""
    return Table(*(Column(header, overflow="fold") for header in headers), title=title)
