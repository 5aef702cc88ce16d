"""The devices that a bundle can be built for: rows of `targets.toml`."""

from __future__ import annotations

from importlib.resources import files

import msgspec
from rich.console import Console
from rich.table import Table

from spatialnet_edge.errors import EngineUnavailable, UsageError

HERE = "here"


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One row: see the comments in `targets.toml`."""

    description: str
    compile: str
    precisions: tuple[str, ...]
    compute_capability: str = ""
    tensorrt: str = ""

    @property
    def buildable(self) -> bool:
        """Whether this version can build for it at all."""
        return bool(self.precisions)


def load_targets() -> dict[str, Target]:
    """Name to row, in the file's order."""
    text = files("spatialnet_optimize").joinpath("targets.toml").read_bytes()
    return msgspec.toml.decode(text, type=dict[str, Target])


def find_target(name: str) -> tuple[str, Target]:
    """The row of this name; `here` is what this machine can run, which for now is its CPU.

    Raises:
        UsageError: no such target.
        EngineUnavailable: known, but this version cannot build for it.
    """
    targets = load_targets()
    resolved = "cpu" if name == HERE else name
    if resolved not in targets:
        raise UsageError(f"no target '{name}'; there are {', '.join([HERE, *targets])}; see 'spatialnet-edge targets'")
    target = targets[resolved]
    if not target.buildable:
        possible = ", ".join(key for key, row in targets.items() if row.buildable)
        raise EngineUnavailable(
            f"target '{name}' ({target.description}) needs NVIDIA's TensorRT {target.tensorrt} on the device itself, which this "
            f"version does not drive yet; build for {possible}, whose portable graph runs there on the CPU"
        )
    return resolved, target


def show() -> None:
    """List the devices that a bundle can be built for."""
    table = Table("target", "device", "compiled by", "compute capability", "TensorRT", "candidates")
    table.add_row(HERE, "This machine, found out by itself", "", "", "", "")
    for name, row in load_targets().items():
        tried = ", ".join(row.precisions) or "[yellow]not in this version[/]"
        table.add_row(name, row.description, row.compile, row.compute_capability, row.tensorrt, tried)
    Console().print(table)
