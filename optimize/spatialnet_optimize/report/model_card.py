"""A model's card: what it was trained on, how, and what every head reaches, measured on the bundle itself.

`spatialnet-edge card BUNDLE --data-root DIR` evaluates the exported graph, not the network that it came from, on the `val`
split of each data set, and writes `NAME.md`, `NAME.json` and the plots beside each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from spatialnet_edge.api import Model, load
from spatialnet_edge.core.output_paths import to_be_written
from spatialnet_edge.core.spec import ModelSpec, Multiclass
from spatialnet_optimize.evaluation.metrics import Score, decode_images, figures, judge, predict
from spatialnet_optimize.report.hub_metadata import commercial_use, metadata_block
from spatialnet_training.data.dataset_registry import data_sets, learnt
from spatialnet_training.data.ground_truth import Truth, truths
from spatialnet_training.data.labelled_dataset import LabelledImages, open_labelled
from spatialnet_training.data.taxonomy import Taxonomy, load_taxonomy
from spatialnet_training.plots import Confusion, plot_confusions, plot_curves

SPLIT = "val"


def card(
    bundle: Annotated[str, typer.Argument(help="The exported bundle.")],
    data_root: Annotated[Path, typer.Option(help="The folder that holds the data sets.")],
    log: Annotated[Path | None, typer.Option(help="log.csv of the training run, for its curves.")] = None,
    notes: Annotated[Path | None, typer.Option(help="Markdown to put into the card: hardware, time, what to know.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The card, NAME.md; figures and plots go beside it.", callback=to_be_written)
    ] = Path("card.md"),
) -> None:
    """Measure every head on the validation images of every data set that the model has a head for, and write its card."""
    taxonomy = load_taxonomy()
    results: dict[str, list[Score]] = {}
    with load(bundle, threads=1) as model:
        paths = data_sets(data_root, ",".join(learnt([model.bundle.spec])))  # of one that learnt none, all: it is told why
        for name, path in track(paths.items(), "evaluate", console=Console(stderr=True)):
            images = open_labelled(path, SPLIT)
            pixels = decode_images(images, model.bundle.spec.input)
            outputs = predict(model.opened.engine, pixels.images)
            known = [*truths(images, model.bundle.spec), *mapped(images, model.bundle.spec, taxonomy, name)]
            results[name] = [judge(model.bundle.spec, truth, outputs, pixels.kept) for truth in known]
        write(output, model, results, log, notes)
    print(output)


def mapped(images: LabelledImages, spec: ModelSpec, taxonomy: Taxonomy, data_set: str) -> list[Truth]:
    """What the taxonomy says of each image for the heads that all data sets share."""
    tables = {"land_use": taxonomy.land_use, "settlement": taxonomy.settlement}
    rows = np.arange(len(images), dtype=np.int64)
    found: list[Truth] = []
    for head in spec.heads:
        if head.name in tables and isinstance(head, Multiclass):
            answers = [head.labels.index(tables[head.name][data_set, kind]) for kind in images.classes]
            found.append(Truth(head.name, rows, np.array(answers, np.int64)))
        elif head.name == "object_kinds":
            labelled = [row for row in rows if images.files[row] in images.objects]
            counts = [[sum(images.objects[images.files[row]].values())] for row in labelled]
            if labelled:
                found.append(Truth(head.name, np.array(labelled, np.int64), np.array(counts, np.float32)))
    return found


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the card's table."""

    data_set: str
    head: str
    images: int
    metrics: dict[str, float]

    def __str__(self) -> str:
        m = self.metrics
        cells = [f"{100 * m[k]:.2f}" if k in m else "—" for k in ("accuracy", "macro_f1", "mean_average_precision")]
        answered = f"{100 * m['accuracy_of_answered']:.2f} of {100 * m['answered']:.1f}" if "answered" in m else "—"
        errors = [f"{m[k]:.3f}" if k in m else "—" for k in ("expected_calibration_error", "mean_absolute_error")]
        return f"| {self.data_set} | `{self.head}` | {self.images} | {' | '.join([*cells, answered, *errors])} |"


def write(output: Path, model: Model, results: dict[str, list[Score]], log: Path | None, notes: Path | None) -> None:
    name, bundle, engine = output.stem, model.bundle, model.opened.record
    record = {
        "bundle_sha256": bundle.sha256,
        "split": SPLIT,
        "data_sets": {data_set: [figures(each) for each in scores] for data_set, scores in results.items()},
    }
    output.with_suffix(".json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    plot_confusions(output.with_name(f"{name}.confusion.png"), [*own_heads(results)])
    curves = ""
    if log is not None:
        plot_curves(output.with_name(f"{name}.curves.png"), log)
        curves = f"\n![Training curves]({name}.curves.png)\n"
    lines = [
        str(Line(data_set, each.head, each.images, each.metrics)) for data_set, scores in results.items() for each in scores
    ]
    origin = bundle.manifest.provenance
    data = "\n".join(f"- {each}" for each in origin.data)
    block = metadata_block(bundle.spec.name, origin.licence, SPLIT, results)
    text = f"""{block}# {bundle.spec.name}

Made with `{origin.command}` and exported by {origin.tool} from {origin.source}. Licence: {origin.licence}.
Bundle identity (sha256 of its manifest): `{bundle.sha256}`.

Input: uint8 {bundle.spec.input.height}×{bundle.spec.input.width} RGB. One graph from pixels to calibrated probabilities.

Trained on:

{data}

## May I use it commercially?

{commercial_use(origin.licence)}

{notes.read_text(encoding="utf-8").strip() if notes else ""}

## What every head reaches

Measured on `{engine.path}` ({engine.precision}, {engine.backend}), on the `{SPLIT}` images of the AiTLAS splits, none of which
was used for training, calibration or selection. "Answered right" is the accuracy, in per cent, where the head does not abstain, and
the share of images that it answers.

| data set | head | images | accuracy % | macro F1 % | mAP % | answered right | calibration error | mean error |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(lines)}

Per-label figures and every confusion matrix: [{name}.json]({name}.json).

![Confusion matrices]({name}.confusion.png)
{curves}"""
    output.write_text(text, encoding="utf-8")


def own_heads(results: dict[str, list[Score]]) -> Iterator[Confusion]:
    """The confusion matrix of each data set's own head."""
    for data_set, scores in results.items():
        for each in scores:
            if each.head == f"land_use_{data_set}":
                title = f"{data_set}: {each.images} images, accuracy {each.metrics['accuracy']:.2%}"
                yield Confusion(title, each.labels, np.array(each.confusion, np.int64))
