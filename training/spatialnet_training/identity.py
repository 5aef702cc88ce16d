"""Which run a folder holds, so that another one does not go on from its checkpoint.

A run that is started again goes on where it stopped. On other images or labels it would go on, too, and what comes out would say
that it was trained on them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from spatialnet_edge.durable import write_durably
from spatialnet_edge.errors import UsageError
from spatialnet_edge.spec import Task
from spatialnet_training.checkpoint import run_name
from spatialnet_training.samples import Samples
from spatialnet_training.transfer import answers

FILE = "run.json"


class Identity(msgspec.Struct, frozen=True):
    """What must not differ. How long, how fast and with what augmentation it learns may: a run can be made longer.

    Attributes:
        backbone: of the network.
        start: what its weights started from; empty for nothing.
        data: names and numbers of images.
        heads: name and labels of each.
        labels: a digest of every training image's labels and size, in their order.
    """

    backbone: str
    start: str
    data: tuple[str, ...]
    heads: tuple[tuple[str, tuple[str, ...]], ...]
    labels: str


def identify(backbone: str, start: Path | None, data: Sequence[str], tasks: Sequence[Task], samples: Samples) -> Identity:
    """The identity of a run on these training images."""
    digest = hashlib.sha256(samples.data_set.tobytes())
    for name in sorted(samples.targets):
        digest.update(samples.targets[name].tobytes())
    digest.update(repr([image.shape for image in samples.images]).encode())
    heads = tuple(answers(task) for task in tasks)
    return Identity(backbone, run_name(start) if start else "", tuple(data), heads, digest.hexdigest())


def require_same(folder: Path, own: Identity) -> None:
    """Refuse a folder whose checkpoint is of another run. Folders of before this was written down are believed.

    Raises:
        UsageError: what differs, and what to do.
    """
    try:
        held = msgspec.json.decode((folder / FILE).read_bytes(), type=Identity)
    except (OSError, ValueError):
        return
    differing = [name for name in Identity.__struct_fields__ if getattr(held, name) != getattr(own, name)]
    if differing:
        name = differing[0]
        found = f": {said(held, name)} there, {said(own, name)} here" if name in ("backbone", "start", "data") else ""
        raise UsageError(
            f"{folder}: holds the checkpoint of a run that differs in its {name}{found}; name another folder with --out, or remove "
            f"this one"
        )


def said(run: Identity, name: str) -> str:
    value = getattr(run, name)
    return ", ".join(value) if isinstance(value, tuple) else value or "nothing"


def write_identity(folder: Path, own: Identity) -> None:
    """Write down whose checkpoints the folder will hold."""
    write_durably(folder / FILE, msgspec.json.encode(own) + b"\n")
