"""The card of a run: one self-contained HTML page with accuracy, curves and provenance."""

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
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from spatialnet_edge.bundle.manifest import Provenance
from spatialnet_edge.core.hardware_info import machine
from spatialnet_edge.core.pixels import encode_png, resize
from spatialnet_edge.core.spec import ModelSpec, Multiclass, Multilabel
from spatialnet_training.config import TrainConfig
from spatialnet_training.loop.selection import Selection
from spatialnet_training.loop.verdict import HeadVerdict, Verdict
from spatialnet_training.losses.multitask import UNLABELLED
from spatialnet_training.plots import Confusion, plot_confusions, plot_curves, read_log

CARD, CURVES, CONFUSIONS = "card.html", "curves.png", "confusion.png"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Results of a finished run.

    Attributes:
        parameters: number of parameters of the network.
        seconds: training time, including the time before a resume.
        selection: the compared candidates; None without a comparison.
    """

    config: TrainConfig
    spec: ModelSpec
    provenance: Provenance
    parameters: int
    seconds: float
    verdict: Verdict
    selection: Selection | None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table of heads."""

    name: str
    images: int
    right: str
    temperature: str
    abstain: str


def write_card(out: Path, outcome: Outcome, log: Path) -> Path:
    """Write `card.html` and its plots as PNG files."""
    config, verdict = outcome.config, outcome.verdict
    curved = any(row["epoch"] for row in read_log(log))  # a linear head alone, epoch 0, has no curve
    if curved:
        plot_curves(out / CURVES, log)
    plot_confusions(out / CONFUSIONS, confusions(outcome.spec, verdict))
    template = files("spatialnet_training.loop").joinpath("run_card.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(template)
    text = page.render(
        name=outcome.spec.name,
        backbone=config.backbone,
        parameters=outcome.parameters,
        size=config.size,
        groups=" + ".join(config.groups),
        source=outcome.provenance.source,
        judged_by=verdict.judged_by,
        images=len(verdict.samples),
        own=verdict.judged_by == "validation",
        heads=[row_of(each, outcome.spec) for each in verdict.heads],
        verdicts=[each for each in verdict.heads if each.per_class],
        selection=outcome.selection,
        mistakes=[(each, thumbnail(each.image)) for each in verdict.mistakes],
        suspects=[(each, thumbnail(each.image)) for each in verdict.suspects],
        curves=encoded(out / CURVES) if curved else None,
        confusions=encoded(out / CONFUSIONS) if (out / CONFUSIONS).exists() else None,
        facts=facts(config, outcome.provenance, outcome.seconds),
        configuration=msgspec.toml.encode(said(msgspec.to_builtins(config))).decode(),
    )
    (out / CARD).write_text(text, encoding="utf-8", errors="backslashreplace")
    return out / CARD


def thumbnail(image: NDArray[np.uint8], side: int = 128) -> str:
    """A small PNG of an image's first three bands, in base 64."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    shown = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    small = resize(np.ascontiguousarray(shown), max(1, round(width * scale)), max(1, round(height * scale)))
    return base64.b64encode(encode_png(small)).decode()


def said(tree: Any) -> Any:
    """Convert to plain values without None, because TOML has no null."""
    if isinstance(tree, dict):
        return {key: said(value) for key, value in tree.items() if value is not None}
    return [said(each) for each in tree] if isinstance(tree, list | tuple) else tree


def row_of(verdict: HeadVerdict, spec: ModelSpec) -> Row:
    head = spec.head(verdict.head.name)
    temperature = f"{head.temperature:.2f}" if isinstance(head, Multiclass | Multilabel) else "—"
    abstain = f"{head.abstain_below:.2f}" if isinstance(head, Multiclass) else "—"
    return Row(head.name, verdict.images, f"{100 * verdict.accuracy:.1f}", temperature, abstain)


def confusions(spec: ModelSpec, verdict: Verdict) -> list[Confusion]:
    """The confusion matrix of every categorical head with labelled images."""
    found: list[Confusion] = []
    for head in spec.heads:
        if isinstance(head, Multiclass) and head.name in verdict.samples.targets:
            target = verdict.samples.targets[head.name]
            known = target != UNLABELLED
            if known.any():
                answers = verdict.logits[head.name].argmax(1).numpy()[known]
                table = confusion_matrix(target[known], answers, labels=np.arange(head.width))
                found.append(Confusion(f"{head.name}: {int(known.sum())} {verdict.judged_by} images", head.labels, table))
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
