"""The stages of a recipe: what each one makes, from what, and whether it is done."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from spatialnet_edge.core.atomic_io import write_durably
from spatialnet_edge.core.errors import UsageError
from spatialnet_optimize.reproduce.recipe import Recipe, Run
from spatialnet_training.cli.configs import read_config
from spatialnet_training.config import TrainConfig
from spatialnet_training.networks.checkpoint_paths import NETWORK

Profile: TypeAlias = Literal["cpu", "gpu"]
FINISHED = "stages.json"
"""Of each finished stage, the digest of what it was made by."""
KNOWING, RECALIBRATED = "teach-known", "recalibrate"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage.

    Attributes:
        config: of a training run; None for the stages after the student.
        described: what it does, in words.
        output: the file that it leaves.
        digest: of the stage and all stages before it: another digest is another recipe.
        hours: expected time; None if not measured.
    """

    name: str
    config: TrainConfig | None
    described: str
    output: Path
    digest: str
    hours: float | None


@dataclass(frozen=True, slots=True)
class Request:
    """How a recipe is to be carried out.

    Attributes:
        out: folder for every stage.
        data_root: the folder that holds the data sets.
        profile: where the training runs take place.
        weights: file of public weights that a run begins with; None for none.
        seed: of pictures and corruptions after the training runs.
        serial: of the bundle.
        set: what is different in every training run, `key=value` as `train --set` takes it.
    """

    out: Path
    data_root: Path
    profile: Profile = "cpu"
    weights: Path | None = None
    seed: int = 0
    serial: int = 1
    set: tuple[str, ...] = ()


def plan(recipe: Recipe, request: Request) -> list[Stage]:
    """Every stage of a recipe, in order.

    Raises:
        UsageError: a configuration is not valid, or a run needs --weights.
    """
    stages: list[Stage] = []
    digest, out = "", request.out

    def add(name: str, config: TrainConfig | None, described: str, output: Path, hours: float | None) -> None:
        nonlocal digest
        settled = msgspec.json.encode(config) if config else described.encode()
        digest = hashlib.sha256(digest.encode() + name.encode() + settled).hexdigest()
        stages.append(Stage(name, config, described, output, digest, hours))

    for run in recipe.runs:
        overrides = overrides_of(recipe, run, request)
        described = f"train --config {run.config}" + "".join(f" --set '{each}'" for each in overrides)
        hours = run.hours if request.profile == "cpu" else run.gpu_hours
        add(run.name, read_config(run.config, overrides), described, out / run.name / NETWORK, hours)
    student = recipe.runs[-1].name
    where = f"--data-root {request.data_root} --seed {request.seed}"
    add(KNOWING, None, f"teach-known {out / student} {where} -o {out / KNOWING}", out / KNOWING / NETWORK, None)
    add(RECALIBRATED, None, f"recalibrate {out / KNOWING} {where} -o {out / RECALIBRATED}", out / RECALIBRATED / NETWORK, None)
    bundle = out / f"{recipe.model}.snb"
    add("export", None, f"export {out / RECALIBRATED} -o {bundle} --serial {request.serial}", bundle, None)
    return stages


def overrides_of(recipe: Recipe, run: Run, request: Request) -> tuple[str, ...]:
    """What a run sets in its configuration, with paths in the place of `$OUT` and `$WEIGHTS`."""
    overrides = (*run.set, *(recipe.gpu if request.profile == "gpu" else ()), *request.set)
    if request.weights is None and any("$WEIGHTS" in each for each in overrides):
        raise UsageError(f"run '{run.name}' begins with pretrained weights; give their file with --weights: {recipe.weights}")
    return tuple(each.replace("$OUT", str(request.out)).replace("$WEIGHTS", str(request.weights)) for each in overrides)


def finished(out: Path) -> dict[str, str]:
    """Finished stages with their digests; empty for a new folder.

    Raises:
        UsageError: the folder's record cannot be read.
    """
    path = out / FINISHED
    if not path.exists():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {error}; remove it to run every stage again") from error


def is_done(stage: Stage, record: dict[str, str]) -> bool:
    """Whether a stage was finished by this very recipe, and its output is still there.

    Raises:
        UsageError: it was finished by another recipe.
    """
    if not stage.output.exists() or stage.name not in record:
        return False
    if record[stage.name] != stage.digest:
        raise UsageError(
            f"{stage.output}: was made by another recipe, profile or earlier stage; name another folder with --output, or remove "
            f"this one"
        )
    return True


def note_done(stage: Stage, out: Path) -> None:
    """Record that a stage is finished."""
    write_durably(out / FINISHED, msgspec.json.format(msgspec.json.encode(finished(out) | {stage.name: stage.digest})))
