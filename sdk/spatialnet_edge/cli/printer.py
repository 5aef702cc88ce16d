"""The console of every command. Text from bundles, files and libraries is escaped: markup and control characters have no
effect."""

from __future__ import annotations

import sys
from typing import Any, final

from rich.console import Console
from rich.text import Text

from spatialnet_edge.core.printable import printable


@final
class Printer(Console):
    """A rich console that ignores markup in text and escapes control characters; styles are given as `rich.text.Text`."""

    def render_str(self, text: str, **options: Any) -> Text:
        """As `Console.render_str`. Rich calls it for every printed string, including table cells and titles."""
        return super().render_str(printable(text, keep="\n\t"), **options)


def printer(stderr: bool = False, quiet: bool = False) -> Printer:
    """A printer for standard output or standard error; `quiet` prints nothing."""
    return Printer(stderr=stderr, quiet=quiet, markup=False, highlight=False, emoji=False)


def echo(text: object, err: bool = False) -> None:
    """Print one line, escaped and not wrapped."""
    print(printable(text, keep="\t"), file=sys.stderr if err else sys.stdout, flush=True)
