"""Model card: training data, provenance, and the accuracy of every head, measured on the bundle itself.

`spatialnet-edge card BUNDLE --data-root DIR` evaluates the exported graph, not the network that it came from, on the `val`
split of each data set, and writes `NAME.md`, `NAME.json` and the plots to the same folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import track

from spatialnet_edge.api import Model, load
from spatialnet_edge.cli.printer import echo, printer
from spatialnet_edge.core.errors import DataRefused, UsageError
from spatialnet_edge.core.output_paths import to_be_written
from spatialnet_edge.core.spec import RGB, BandGroup, InputSpec, ModelSpec, gsd_text
from spatialnet_optimize.evaluation.metrics import Score, decode_images, figures, judge, predict
from spatialnet_optimize.evaluation.robustness import (
    COVERAGES,
    JPEG_QUALITY,
    NotLand,
    Robustness,
    can_be_corrupted,
    judge_robustness,
    measure_not_land,
)
from spatialnet_optimize.report.hub_metadata import commercial_use, metadata_block
from spatialnet_training.data.corruptions import CORRUPTIONS, SEVERITIES
from spatialnet_training.data.dataset_registry import FILES, data_sets, learnt
from spatialnet_training.data.ground_truth import truths
from spatialnet_training.data.labelled_dataset import LabelledImages, open_labelled
from spatialnet_training.data.measured_sets import MEASURED, head_of
from spatialnet_training.plots import Confusion, plot_confusions, plot_curves, plot_risk, plot_robustness
from spatialnet_training.studies.modality_table import markdown
from spatialnet_training.studies.study_data import OWN_OR_PUBLISHED, DataRoot, OwnData

SPLIT = "val"
CORRUPTED_IMAGES = 150
"""Default number of images per data set to corrupt, each one 24 times."""


def card(
    bundle: Annotated[str, typer.Argument(help="The exported bundle.")],
    data: OwnData = None,
    data_root: DataRoot = None,
    log: Annotated[Path | None, typer.Option(help="log.csv of the training run, for its curves.")] = None,
    notes: Annotated[Path | None, typer.Option(help="Markdown to include in the card: hardware, time, remarks.")] = None,
    corrupted: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Images per data set to corrupt, each one 24 times; 0: no chapter on degraded pictures."
        ),
    ] = CORRUPTED_IMAGES,
    modalities: Annotated[
        list[Path] | None, typer.Option(help="A file of 'modalities --json' for the card's table; may be repeated.")
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="The card, NAME.md; figures and plots are written to the same folder.",
            callback=to_be_written,
        ),
    ] = Path("card.md"),
) -> None:
    """Measure every head on your own validation images, or on those of every published data set that the model has a head for, and
    write its card."""
    results: dict[str, list[Score]] = {}
    robust: dict[str, list[Robustness]] = {}
    with load(bundle, threads=1) as model:
        degraded = corrupted > 0 and can_be_corrupted(model.bundle.spec.input)
        sets = sets_to_judge(model.bundle.spec, data, data_root)
        for name, images in track(sets.items(), "evaluate", console=printer(stderr=True)):
            pixels = decode_images(images, model.bundle.spec.input)
            outputs = predict(model.opened.engine, pixels.images)
            known = truths(images, model.bundle.spec)
            results[name] = [judge(model.bundle.spec, truth, outputs, pixels.kept) for truth in known]
            if degraded:
                robust[name] = judge_robustness(model.opened.engine, images, known, corrupted)
        not_land = measure_not_land(model.opened.engine) if degraded else None
        whose = "each set's published split" if data is None else ", ".join(sets)
        poor = poor_pictures(output, robust, not_land) + "".join(map(modality_chapter, modalities or ()))
        write(output, model, results, poor, log, notes, whose)
    echo(output)


def sets_to_judge(spec: ModelSpec, data: Path | None, root: Path | None) -> dict[str, LabelledImages]:
    """Name to the validation images of a user's own data, or of the published data sets.

    Raises:
        UsageError: both or neither of `data` and `root`.
        DataRefused: the images cannot be used, or none validates.
    """
    if (data is None) == (root is None):
        raise UsageError(OWN_OR_PUBLISHED)
    if data is not None:
        images = open_labelled(data, SPLIT).with_range(spec.input.value_range)
        return {images.name: images}
    assert root is not None
    paths = data_sets(root, ",".join(learnt([spec])))  # of a model that learnt none, all: the error says why
    return {name: open_labelled(path, SPLIT) for name, path in paths.items()}


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


def poor_pictures(output: Path, robust: dict[str, list[Robustness]], not_land: NotLand | None) -> str:
    """The card's chapter on corrupted pictures and pictures without land, with its plot."""
    if not_land is None:
        return ""
    plot = output.with_name(f"{output.stem}.robustness.png")
    plot_robustness(plot, {f"{name}: {each.head}": each.accuracy for name, found in robust.items() for each in found})
    risk = output.with_name(f"{output.stem}.risk.png")
    plot_risk(risk, COVERAGES, {f"{name}: {each.head}": each.risk for name, found in robust.items() for each in found})
    rows = [
        f"| {name} | `{each.head}` | {each.images} | {100 * each.clean:.1f} | {100 * each.jpeg_75:.1f} | "
        + " | ".join(f"{100 * each.mean(severity):.1f}" for severity in SEVERITIES)
        + f" | {each.calibration_error:.3f} | {100 * each.confident_right:.1f} | {100 * each.withheld:.1f} |"
        for name, found in robust.items()
        for each in found
    ]
    columns = ["data set", "head", "images", "clean", "JPEG", *(f"severity {each}" for each in SEVERITIES)]
    columns += ["calibration error", "confident right", "withheld"]
    table = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *rows]
    return f"""## Degraded pictures

Accuracy in per cent on evenly chosen `{SPLIT}` images: unmodified, after JPEG of quality {JPEG_QUALITY}, and with each of
{len(CORRUPTIONS)} corruptions of ImageNet-C (Hendrycks and Dietterich 2019), the mean over the corruptions at each severity.
This includes predictions that the runtime withholds because `known` is below its threshold. The calibration error, and the
share of correct predictions among those with a confidence of 0.9 or more, are over all corrupted images; "withheld" is the
share of these without a label.

{chr(10).join(table)}

Of {not_land.images} generated pictures without land (black, saturated, flat, gradients, static, text, sky, bands, clutter),
{100 * not_land.withheld:.1f} % get no label, and {100 * not_land.confident:.1f} % get one with a confidence of 0.9 or more.

![Accuracy under corruption]({plot.name})

![Risk and coverage on corrupted images]({risk.name})
"""


def modality_chapter(path: Path) -> str:
    """The card's table of what each subset of bands is worth, from a file of `modalities --json`.

    Raises:
        DataRefused: it is no such file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        title = f"## Bands of {found['data_set']}: head `{found['head']}`, {found['images']} images of `{SPLIT}`"
        return f"{title}\n\n{how_certain(found['images'], found['scenes'])}\n\n{markdown(found)}\n"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataRefused(f"{path}: not the figures of 'modalities --json' ({error})") from error


def how_certain(images: int, scenes: int) -> str:
    """What the intervals of a modality chapter mean."""
    if scenes == 1:
        return "All images are of one scene, so there are no intervals: another scene may give other figures."
    if scenes == images:
        return "Intervals of 95 % over images."
    return f"Intervals of 95 % over {scenes} scenes, for tiles of one scene are alike."


def write(
    output: Path, model: Model, results: dict[str, list[Score]], poor: str, log: Path | None, notes: Path | None, whose: str
) -> None:
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

{input_text(bundle.spec.input)} One graph from pixels to calibrated probabilities.

Trained on:

{data}

## May I use it commercially?

{commercial_use(origin.licence)}

{notes.read_text(encoding="utf-8").strip() if notes else ""}

## Accuracy of every head

Measured on `{engine.path}` ({engine.precision}, {engine.backend}), on the `{SPLIT}` images of {whose}, none of
which was used for training, calibration or selection. "With a label" is the accuracy, in per cent, on the images for which the
head gives a label, and the share of these images.

| data set | head | images | accuracy % | macro F1 % | mAP % | with a label | calibration error | mean error |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(lines)}

Per-label figures and every confusion matrix: [{name}.json]({name}.json).

![Confusion matrices]({name}.confusion.png)

{scale_chapter(bundle.spec)}{poor}{curves}"""
    output.write_text(text, encoding="utf-8")


def scale_chapter(spec: ModelSpec) -> str:
    """The card's chapter on the ground sampling distance of each head; empty if the manifest states none."""
    if not any(head.gsd for head in spec.heads):
        return ""
    rows = [f"| `{head.name}` | {gsd_text(head.gsd)} |" for head in spec.heads]
    return f"""## Scale

Ground sampling distance of the training images of each head: metres on the ground per pixel of the model's input
({spec.input.height}×{spec.input.width} pixels), smallest to largest. `run --gsd` cuts large frames into tiles at this scale.

| head | metres per pixel |
|---|---|
{chr(10).join(rows)}

"""


def input_text(spec: InputSpec) -> str:
    """What the graph takes, in words; of several groups a list of bands with the range that their levels stand for."""
    if spec.groups == (RGB,):
        return f"Input: uint8 {spec.height}×{spec.width} RGB."
    lines = [f"- `{group.name}`: {', '.join(bands_text(group))}" for group in spec.groups]
    shape = f"Input: uint8 {spec.height}×{spec.width}×{spec.channels}, levels 0 to 255 of these bands in this order."
    absent = "A group that is zero everywhere counts as absent, and the network works without it."
    return "\n".join([f"{shape} {absent}", "", *lines, "", ""])


def bands_text(group: BandGroup) -> list[str]:
    """Each band with its range and unit; levels of a camera have neither."""
    if not group.ranges:
        return [*group.bands]
    return [f"{band} {each.low:g} to {each.high:g} {each.unit}" for band, each in zip(group.bands, group.ranges, strict=True)]


def own_heads(results: dict[str, list[Score]]) -> Iterator[Confusion]:
    """The confusion matrix of each data set's own heads: those of published data sets are named after them."""
    for data_set, scores in results.items():
        for each in scores:
            if each.confusion and each.head == (head_of(data_set) if data_set in {*FILES, *MEASURED} else each.head):
                title = f"{data_set}: {each.images} images, accuracy {each.metrics['accuracy']:.2%}"
                yield Confusion(title, each.labels, np.array(each.confusion, np.int64))
