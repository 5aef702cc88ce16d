"""The inputs of a run: labelled images, initial weights, teachers, and images for distillation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.spec import BandGroup, Head, Multilabel, Regression
from spatialnet_training.config import SELF, TaughtBy, TrainConfig
from spatialnet_training.data.bands import groups_named
from spatialnet_training.data.custom_dataset import load_own
from spatialnet_training.data.dataset_options import DatasetOptions
from spatialnet_training.data.datasets import TrainingData, load_published, load_unlabelled
from spatialnet_training.data.samples import Samples
from spatialnet_training.distillation.teachers import Teacher, as_teacher, taken_bands
from spatialnet_training.loop.linear_head import larger_size
from spatialnet_training.networks.checkpoint import load_network, load_spec
from spatialnet_training.networks.checkpoint_paths import located
from spatialnet_training.networks.model import SpatialNet
from spatialnet_training.networks.transfer import answers, transfer


@dataclass(frozen=True, slots=True)
class RunInputs:
    """The inputs of a run besides its labelled images.

    Attributes:
        start: the checkpoint that the weights come from; None for random or pretrained ones.
        network: with these weights, on the CPU.
        inherited: licence of the checkpoint; None without one.
        unlabelled: images for distillation only.
        seen: names and numbers of all images.
        terms: licences of all data and weights.
    """

    start: Path | None
    groups: tuple[BandGroup, ...]
    network: SpatialNet
    inherited: str | None
    teachers: list[Teacher]
    unlabelled: Samples | None
    seen: tuple[str, ...]
    terms: tuple[str, ...]


def load_images(config: TrainConfig, data: Path | None, data_root: Path, options: DatasetOptions) -> TrainingData:
    """Load the user's own images, or the data sets of the configuration.

    Args:
        data: the user's folder, zip or table; None: published data sets below `data_root`.

    Raises:
        UsageError: options for own images without `--data`.
        DataRefused: the images cannot be trained on.
    """
    side, groups = stored_side(config), groups_named(config.groups)
    if data is not None:
        return load_own(data, side, groups, options)
    if options != DatasetOptions():
        raise UsageError("options such as --labels, --group and --range describe your own images; give them with --data")
    return load_published({name: data_root / file for name, file in config.data.items()}, side, groups)


def open_inputs(config: TrainConfig, data: TrainingData) -> RunInputs:
    """Create the network and load the inputs of the run.

    Raises:
        UsageError: an unknown backbone or group, no such checkpoint, a teacher with other labels, or an invalid
            count.
    """
    start = starting_point(config)
    groups = groups_named(config.groups)
    check_counts(config.counts, data.heads)
    outputs = {head.name: head.width for head in data.heads}
    network = SpatialNet(config.backbone, outputs, config.size, groups, config.weights)
    inherited = transfer(network, data.heads, start).licence if start else None
    teachers = [load_teacher(each, data, groups) for each in other_teachers(config)]
    settings = config.distillation
    unlabelled, seen, terms = None, data.summary, [*data.terms]
    if settings and settings.unlabelled:
        unlabelled = load_unlabelled(Path(settings.unlabelled), stored_side(config), groups, settings.unlabelled_tile)
        seen = (*seen, f"{unlabelled.data_sets[0]}: {len(unlabelled)} unlabelled")
        terms.append(settings.unlabelled_terms)
    terms.append(config.weights_terms)
    return RunInputs(start, groups, network, inherited, teachers, unlabelled, seen, tuple(terms))


def stored_side(config: TrainConfig) -> int:
    """Side of the images in memory, in pixels: large enough for every stage and every teacher.

    Raises:
        UsageError: a teacher does not exist.
        Refused: a teacher cannot be read.
    """
    seen = [each.size or load_spec(located(each.checkpoint)).input.height for each in other_teachers(config)]
    larger = [larger_size(config.size)] if config.linear_head else []
    return max(config.stored_side, *(stage.size for stage in config.stages), *larger, *seen)


def other_teachers(config: TrainConfig) -> list[TaughtBy]:
    """The teachers that are checkpoints, without the run's own averaged weights."""
    settings = config.distillation
    return [each for each in settings.taught_by if each.checkpoint != SELF] if settings else []


def starting_point(config: TrainConfig) -> Path | None:
    """The initial checkpoint; None for random or pretrained weights.

    Raises:
        UsageError: there is no such checkpoint.
    """
    try:
        return located(config.start) if config.start else None
    except UsageError as error:
        raise UsageError(f"{error}; or give --start scratch") from error


def check_counts(counts: Mapping[str, str], heads: Sequence[Head]) -> None:
    """Refuse an invalid count.

    Raises:
        UsageError: a head does not exist, is not a quantity from 0 to the number of labels, or is not multilabel.
    """
    by_name = {head.name: head for head in heads}
    for quantity, labels in counts.items():
        count, counted = by_name.get(quantity), by_name.get(labels)
        right = (
            isinstance(count, Regression)
            and isinstance(counted, Multilabel)
            and count.low == 0
            and count.high == counted.width
        )
        if not right:
            raise UsageError(
                f"counts: '{quantity}' cannot count '{labels}'; expected a quantity from 0 to the number of labels of "
                f"a multilabel head; this run's heads are {', '.join(by_name)}"
            )


def load_teacher(teacher: TaughtBy, data: TrainingData, groups: tuple[BandGroup, ...]) -> Teacher:
    """Load a teacher, and check that its heads and bands match the student's.

    Args:
        groups: the student's.

    Raises:
        UsageError: it does not exist; it has no head in common, or one with other labels; or it names an unknown data set.
        Refused: it cannot be read.
    """
    path = located(teacher.checkpoint)
    network, spec, _ = load_network(path)
    wanted = dict(answers(head) for head in data.heads)
    shared = [head for head in spec.heads if head.name in wanted]
    if not shared:
        raise UsageError(f"{path}: teaches {', '.join(t.name for t in spec.heads)}; the student learns {', '.join(wanted)}")
    if other := [head.name for head in shared if wanted[head.name] != answers(head)[1]]:
        raise UsageError(f"{path}: its labels of '{other[0]}' are not the student's, or in another order")
    bands = taken_bands(spec.input.groups, groups)
    return as_teacher(network, teacher.size or spec.input.height, teacher, data.train.data_sets, bands)
