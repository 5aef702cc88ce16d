"""A recipe: the training runs that a shipped model is made by, as a TOML file in `configs/recipes`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import msgspec

from spatialnet_edge.core.errors import UsageError

MOST_RUNS = 3
"""Two teachers and one student. A longer lineage is hard to follow."""
RunName = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9-]*$")]


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One training run.

    Attributes:
        name: of its folder.
        config: the name of a shipped configuration.
        set: what is different from that, `key=value` as `train --set` takes it. `$OUT` stands for the folder of the whole recipe,
            `$WEIGHTS` for the file given with --weights.
        hours: expected time on two CPU cores; None if not measured.
        gpu_hours: expected time of the profile `gpu`; None if not measured.
    """

    name: RunName
    config: str
    set: tuple[str, ...] = ()
    hours: float | None = None
    gpu_hours: float | None = None


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The runs, in order; the last one is the student, which is then taught to refuse, recalibrated and exported.

    Attributes:
        model: the file name of the bundle, without its suffix.
        gpu: what the profile `gpu` sets in every run, `key=value`.
        weights: where the file for --weights comes from; None where no run needs one.
    """

    model: RunName
    runs: Annotated[tuple[Run, ...], msgspec.Meta(min_length=1, max_length=MOST_RUNS)]
    gpu: tuple[str, ...] = ()
    weights: str | None = None


def read_recipe(name: str) -> Recipe:
    """A recipe by path or by the name of a shipped one.

    Raises:
        UsageError: neither, or not a valid recipe.
    """
    shipped = Path(str(files("spatialnet_training"))) / "configs" / "recipes"
    path = Path(name) if name.endswith(".toml") else shipped / f"{name}.toml"
    if not path.is_file():
        names = ", ".join(each.stem for each in sorted(shipped.glob("*.toml")))
        raise UsageError(f"no recipe '{name}'; shipped: {names}; or give the path of a TOML file")
    try:
        recipe = msgspec.toml.decode(path.read_bytes(), type=Recipe)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    if len({run.name for run in recipe.runs}) < len(recipe.runs):
        raise UsageError(f"{path}: two runs have one name; give each its own, because it names the run's folder")
    return recipe
