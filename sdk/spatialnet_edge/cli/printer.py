"""The printer of every command: what bundles, files and libraries say is shown as it is, and never obeyed."""

from __future__ import annotations

import sys
from typing import Any, final

from rich.console import Console
from rich.text import Text

from spatialnet_edge.core.printable import printable


@final
class Printer(Console):
    """A console that takes no markup from text and escapes control characters in it; styles are given as `rich.text.Text`."""

    def render_str(self, text: str, **options: Any) -> Text:
        """As `Console.render_str`; every string that is printed, cells and titles of tables too, comes through here."""
        return super().render_str(printable(text, keep="\n\t"), **options)


def printer(stderr: bool = False, quiet: bool = False) -> Printer:
    """The printer for standard output or standard error; `quiet` prints nothing."""
    return Printer(stderr=stderr, quiet=quiet, markup=False, highlight=False, emoji=False)


def echo(text: object, err: bool = False) -> None:
    """One line without wrapping, escaped."""
    print(printable(text, keep="\t"), file=sys.stderr if err else sys.stdout, flush=True)
