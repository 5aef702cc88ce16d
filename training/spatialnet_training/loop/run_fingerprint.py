"""Which run a folder holds, so that another one does not go on from its checkpoint.

A run that is started again goes on where it stopped. On other images, or otherwise configured, it would go on, too, or be done at
once; and what comes out would say that it was trained as it was not.
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
FREE = frozenset({"start", "stages", "compile", "precision", "images_on_device", "weights_terms"})
"""Of the configuration, what may change while a run stops: what is still to come, how it is computed, and what is said of it.
What it started from is compared by its name alone, for folders are moved."""


class RunFingerprint(msgspec.Struct, frozen=True):
    """What makes a run this one.

    Attributes:
        config: of it, with what the command line overrode.
        start: what its weights started from; empty for nothing.
        data: names and numbers of images.
        heads: name and labels of each.
        labels: a digest of every training image's labels and size, in their order.
    """

    config: TrainConfig
    start: str
    data: tuple[str, ...]
    heads: tuple[tuple[str, tuple[str, ...]], ...]
    labels: str


def fingerprint(
    config: TrainConfig, start: Path | None, data: Sequence[str], heads: Sequence[Head], samples: Samples
) -> RunFingerprint:
    """The identity of a run on these training images."""
    digest = hashlib.sha256(samples.data_set.tobytes())
    for name in sorted(samples.targets):
        digest.update(samples.targets[name].tobytes())
    digest.update(repr([image.shape for image in samples.images]).encode())
    answered = tuple(answers(head) for head in heads)
    return RunFingerprint(config, run_name(start) if start else "", tuple(data), answered, digest.hexdigest())


def require_same(folder: Path, own: RunFingerprint, epochs: int) -> None:
    """Refuse a folder whose checkpoint is of another run. One that does not say whose it is is believed.

    Args:
        epochs: that its checkpoint has seen.

    Raises:
        UsageError: what differs, and what to do.
    """
    try:
        held = msgspec.json.decode((folder / FILE).read_bytes(), type=RunFingerprint)
    except (OSError, ValueError):
        return
    for name, there, here in differences(held, own, epochs):
        raise UsageError(
            f"{folder}: holds the checkpoint of a run with another '{name}': {shown(there)} there, {shown(here)} here; "
            f"name another folder with --out, or remove this one"
        )


def differences(held: RunFingerprint, own: RunFingerprint, epochs: int) -> Iterator[tuple[str, Any, Any]]:
    """What is not the same, with both values; of the stages, those of the epochs that were trained."""
    settings = [name for name in TrainConfig.__struct_fields__ if name not in FREE]
    pairs = [(name, getattr(held, name), getattr(own, name)) for name in ("start", "data", "heads", "labels")]
    pairs += [(name, getattr(held.config, name), getattr(own.config, name)) for name in settings]
    pairs += [("stages", passed(held.config, epoch), passed(own.config, epoch)) for epoch in range(epochs)]
    return ((name, there, here) for name, there, here in pairs if there != here)


def passed(config: TrainConfig, epoch: int) -> TrainingStage:
    """What an epoch was trained with, however many there were of its kind."""
    return msgspec.structs.replace(config.stage_at(epoch), epochs=1)


def shown(value: Any) -> str:
    """A value as JSON, not too long."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 120 else f"{text[:119]}…"


def write_identity(folder: Path, own: RunFingerprint) -> None:
    """Write down whose checkpoints the folder will hold."""
    write_durably(folder / FILE, msgspec.json.encode(own) + b"\n")
