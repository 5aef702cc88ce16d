"""Plug-ins: tables of backends, sources and sinks: name → module, class, extra. Entry points add rows.

A package adds one by an entry point, for instance `[project.entry-points."spatialnet_edge.sinks"]` with
`lora = "my_package.lora:LoraSink"`. The names are known without importing anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from spatialnet_edge.core.errors import BrokenLibrary, MissingExtra, first_line


@dataclass(frozen=True, slots=True)
class Plugin:
    """The location of a class, and the optional library that it needs.

    Attributes:
        target: `module:attribute`.
        library: import name of the optional library; empty if the base runtime suffices.
        extra: the extra that installs the library.
        parser: `module:function` that parses the rest of a URI without opening anything; None if there is nothing to parse.
    """

    target: str
    library: str = ""
    extra: str = ""
    parser: str | None = None

    def load(self) -> Any:
        """Import the class.

        Raises:
            MissingExtra: the optional library itself is missing.
            BrokenLibrary: a library is installed but does not load.
        """
        return self._import(self.target)

    def parse(self, rest: str) -> None:
        """Check the rest of a URI without opening anything.

        Raises:
            UsageError, Refused: it is invalid, or a library is missing.
        """
        if self.parser is not None:
            self._import(self.parser)(rest)

    def require(self) -> None:
        """Look for the optional library without importing it, which may take a second and much memory.

        Raises:
            MissingExtra: it is not installed.
        """
        if self.library and find_spec(self.library) is None:
            raise MissingExtra(self.library, self.extra)

    def _import(self, target: str) -> Any:
        module, attribute = target.split(":")
        try:
            return getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            if self.library and error.name == self.library:
                raise MissingExtra(self.library, self.extra) from error
            raise
        except ImportError as error:
            raise BrokenLibrary(f"{error.name or self.library or module}: {first_line(error)}") from error


def known(group: str, table: Mapping[str, Plugin]) -> dict[str, Plugin]:
    """The built-in rows, and those of installed packages under `spatialnet_edge.<group>`. Built-in rows have priority."""
    return {**_installed(group), **table}


@cache
def _installed(group: str) -> Mapping[str, Plugin]:
    """The rows of installed packages. Cached, because the search reads the metadata of every package (about 10 ms)."""
    return {entry.name: Plugin(entry.value) for entry in entry_points(group=f"spatialnet_edge.{group}")}
