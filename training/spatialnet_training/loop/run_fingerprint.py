"""Run fingerprint: detects that a folder holds another run, so that a run does not resume from a wrong checkpoint.

A restarted run resumes from its folder. With other images or another configuration it would resume too, and
its record would then be wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from spatialnet_edge.core.atomic_io import write_durably
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.spec import Head
from spatialnet_training.config import TrainConfig, TrainingStage
from spatialnet_training.data.samples import Samples
from spatialnet_training.networks.checkpoint_paths import run_name
from spatialnet_training.networks.transfer import answers

FILE = "run.json"
FREE = frozenset({"name", "start", "stages", "compile", "precision", "images_on_device", "weights_terms"})
"""Settings that may change on resume: future stages, computation, and descriptions. The initial checkpoint is compared only by
its name, because folders may be moved."""


class RunFingerprint(msgspec.Struct, frozen=True):
    """The properties that identify a run.

    Attributes:
        config: of the run, including command-line overrides.
        start: the initial checkpoint; empty: none.
        data: names and numbers of images.
        heads: name and labels of each.
        labels: a digest of every training image's labels and size, in order.
    """

    config: TrainConfig
    start: str
    data: tuple[str, ...]
    heads: tuple[tuple[str, tuple[str, ...]], ...]
    labels: str


def fingerprint(
    config: TrainConfig, start: Path | None, data: Sequence[str], heads: Sequence[Head], samples: Samples
) -> RunFingerprint:
    """The fingerprint of a run with these training images."""
    digest = hashlib.sha256(samples.data_set.tobytes())
    for name in sorted(samples.targets):
        digest.update(samples.targets[name].tobytes())
    digest.update(repr([image.shape for image in samples.images]).encode())
    answered = tuple(answers(head) for head in heads)
    return RunFingerprint(config, run_name(start) if start else "", tuple(data), answered, digest.hexdigest())


def require_same(folder: Path, own: RunFingerprint, epochs: int) -> None:
    """Refuse a folder with the checkpoint of another run. A checkpoint without a fingerprint is accepted.

    Args:
        epochs: completed epochs of its checkpoint.

    Raises:
        UsageError: with the difference and the options.
    """
    try:
        held = msgspec.json.decode((folder / FILE).read_bytes(), type=RunFingerprint)
    except (OSError, ValueError):
        return
    for name, there, here in differences(held, own, epochs):
        raise UsageError(
            f"{folder}: holds the checkpoint of a run with another '{name}': {shown(there)} in the folder, "
            f"{shown(here)} now; name another folder with --output, or remove this one"
        )


def differences(held: RunFingerprint, own: RunFingerprint, epochs: int) -> Iterator[tuple[str, Any, Any]]:
    """The differences, with both values; stages are compared for the completed epochs."""
    settings = [name for name in TrainConfig.__struct_fields__ if name not in FREE]
    pairs = [(name, getattr(held, name), getattr(own, name)) for name in ("start", "data", "heads", "labels")]
    pairs += [(name, getattr(held.config, name), getattr(own.config, name)) for name in settings]
    pairs += [("stages", passed(held.config, epoch), passed(own.config, epoch)) for epoch in range(epochs)]
    return ((name, there, here) for name, there, here in pairs if there != here)


def passed(config: TrainConfig, epoch: int) -> TrainingStage:
    """The settings of the completed epochs, regardless of the number of epochs per stage."""
    return msgspec.structs.replace(config.stage_at(epoch), epochs=1)


def shown(value: Any) -> str:
    """A value as JSON, truncated."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 120 else f"{text[:119]}…"


def write_identity(folder: Path, own: RunFingerprint) -> None:
    """Write the fingerprint of the run to the folder."""
    write_durably(folder / FILE, msgspec.json.encode(own) + b"\n")
