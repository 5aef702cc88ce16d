"""The card of a run: one self-contained HTML page with what it reaches, its curves and how it was made."""

from __future__ import annotations

import base64
import platform
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import msgspec
import numpy as np
import torch
from sklearn.metrics import confusion_matrix
from torch import Tensor

from spatialnet_edge.bundle.manifest import Provenance
from spatialnet_edge.core.hardware_info import machine
from spatialnet_edge.core.spec import ModelSpec, Multiclass, Multilabel
from spatialnet_training.config import TrainConfig
from spatialnet_training.data.samples import Samples
from spatialnet_training.losses.multitask import labelled_rows
from spatialnet_training.plots import Confusion, plot_confusions, plot_curves

CARD, CURVES, CONFUSIONS = "card.html", "curves.png", "confusion.png"


@dataclass(frozen=True, slots=True)
class Head:
    """One row of the table."""

    name: str
    images: int
    right: str
    temperature: str
    abstain: str


def write_card(
    out: Path,
    config: TrainConfig,
    spec: ModelSpec,
    provenance: Provenance,
    parameters: int,
    logits: dict[str, Tensor],
    holdout: Samples,
    accuracies: dict[str, float],
    seconds: float,
    log: Path,
) -> Path:
    """Write `card.html`, and its plots as PNG beside it.

    Args:
        parameters: of the network.
        logits: of the held-out images, head to `[N, outputs]`.
        accuracies: of the held-out images, head to 0 to 1.
        seconds: that the training took, before and after it was resumed.
    """
    plot_curves(out / CURVES, log)
    plot_confusions(out / CONFUSIONS, confusions(spec, logits, holdout))
    template = files("spatialnet_training.loop").joinpath("run_card.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(template)
    text = page.render(
        name=spec.name,
        backbone=config.backbone,
        parameters=parameters,
        size=config.size,
        groups=" + ".join(config.groups),
        source=provenance.source,
        held_out=len(holdout),
        heads=[head(spec, name, holdout, value) for name, value in accuracies.items()],
        curves=encoded(out / CURVES),
        confusions=encoded(out / CONFUSIONS),
        facts=facts(config, provenance, seconds),
        configuration=msgspec.toml.encode(said(msgspec.to_builtins(config))).decode(),
    )
    (out / CARD).write_text(text, encoding="utf-8")
    return out / CARD


def said(tree: Any) -> Any:
    """Built-in values without what was not said: TOML has no null."""
    if isinstance(tree, dict):
        return {key: said(value) for key, value in tree.items() if value is not None}
    return [said(each) for each in tree] if isinstance(tree, list | tuple) else tree


def head(spec: ModelSpec, name: str, holdout: Samples, accuracy: float) -> Head:
    head = spec.head(name)
    temperature = f"{head.temperature:.2f}" if isinstance(head, Multiclass | Multilabel) else "—"
    abstain = f"{head.abstain_below:.2f}" if isinstance(head, Multiclass) else "—"
    images = int(labelled_rows(torch.from_numpy(holdout.targets[name])).sum())
    return Head(name, images, f"{100 * accuracy:.1f}", temperature, abstain)


def confusions(spec: ModelSpec, logits: dict[str, Tensor], holdout: Samples) -> list[Confusion]:
    """Of every categorical head that has labelled images."""
    found: list[Confusion] = []
    for head in spec.heads:
        if isinstance(head, Multiclass):
            target = holdout.targets[head.name]
            known = target != -1
            if known.any():
                answers = logits[head.name].argmax(1).numpy()[known]
                table = confusion_matrix(target[known], answers, labels=np.arange(head.width))
                found.append(Confusion(f"{head.name}: {int(known.sum())} held-out images", head.labels, table))
    return found


def facts(config: TrainConfig, provenance: Provenance, seconds: float) -> list[tuple[str, str]]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else machine()
    return [
        ("command", provenance.command),
        ("seed", str(config.seed)),
        ("data", "; ".join(provenance.data)),
        ("hardware", device),
        ("training time", f"{seconds / 60:.0f} minutes"),
        ("software", f"{provenance.tool}, Python {platform.python_version()}"),
        ("finished", provenance.created),
        ("licence", provenance.licence),
    ]


def encoded(picture: Path) -> str:
    return base64.b64encode(picture.read_bytes()).decode()
