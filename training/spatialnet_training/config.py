"""One TOML file says everything that a training run depends on; the command line can override any of it."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from spatialnet_edge.core.errors import UsageError
from spatialnet_training.data.samples import STORED_SIDE

Positive = Annotated[int, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Above0 = Annotated[float, msgspec.Meta(gt=0)]


SELF = "self"
"""The teacher that is the run's own averaged weights."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Immutable, and strict about names that it does not know."""


class TrainingStage(Section, frozen=True):
    """A number of epochs at one image size (progressive resizing); the last ones may augment, mix and sample otherwise."""

    size: Positive
    epochs: Positive
    augmentation: Share = 1.0
    mixup_share: Share | None = None
    cutmix_share: Share | None = None
    sampling_power: Share | None = None


class TaughtBy(Section, frozen=True):
    """One teacher, where its checkpoint alone does not say enough.

    Attributes:
        checkpoint: the folder of a run, the name of a shipped one (`spatialnet-s`), or `self`.
        datasets: the data sets that it knows, as `[data]` names them; it is not asked about images of any other. Empty for all.
        use_on_unlabelled: whether it labels unlabelled pictures.
        weight: of its word beside those of the others that know the same view.
        random_orientation: show it each batch in one of the square's eight orientations, drawn at random. The loss is linear in
            the teacher's probabilities, so that the student learns their mean over the eight at the cost of one.
        size: side in pixels of the views that it sees; None for what it was trained for. A network that was trained on crops is
            best at a somewhat larger size (Touvron et al. 2019, arXiv 1906.06423). Not of `self`, which sees what the student sees.
    """

    checkpoint: str
    datasets: tuple[str, ...] = ()
    use_on_unlabelled: bool = True
    weight: Above0 = 1.0
    random_orientation: bool = False
    size: Positive | None = None

    def __post_init__(self) -> None:
        if self.checkpoint == SELF and self.size is not None:
            raise ValueError(f"the teacher 'self' has size {self.size}; it sees what the student sees, so leave size out")


class Distillation(Section, frozen=True):
    """What a student learns from besides the labels (Hinton et al. 2015, arXiv 1503.02531).

    Attributes:
        teachers: checkpoints, whose probabilities are averaged; each sees the student's views at the size that it was trained for.
            `self` is the run's own averaged weights (Tarvainen and Valpola 2017, arXiv 1703.01780). One that knows some of the
            data sets alone, or counts for more than another, is a table: see `TaughtBy`.
        share: of the loss that comes from the teachers, on labelled images.
        temperature: softens both distributions.
        other_heads_weight: weight of a head's soft labels on images that have no label for that head.
        relations: weight of the loss on how alike the images of a batch are to each other (Tung and Mori 2019, arXiv 1907.09682).
        unlabelled: a folder or zip of any pictures, which the teachers label.
        unlabelled_terms: whose pictures they are and under which licence; the network's own says it after those of its data sets.
        unlabelled_share: of every batch that comes from there.
        unlabelled_tile: side in pixels of the tiles that pictures are cut into, at every scale (`tiles.pyramid`), so that a large
            one is many images rather than one small one; 0 leaves them whole.
    """

    teachers: Annotated[tuple[str | TaughtBy, ...], msgspec.Meta(min_length=1)]
    share: Share = 0.7
    temperature: Above0 = 2.0
    other_heads_weight: Share = 0.1
    relations: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    unlabelled: str = ""
    unlabelled_terms: str = ""
    unlabelled_share: Share = 0.25
    unlabelled_tile: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def taught_by(self) -> tuple[TaughtBy, ...]:
        """The teachers, each as a table."""
        return tuple(TaughtBy(each) if isinstance(each, str) else each for each in self.teachers)


class TrainConfig(Section, frozen=True):
    """See `configs/` for commented examples.

    Attributes:
        backbone: a preset of `backbones.PRESETS`, `timm:NAME`, or `timm-trunk:NAME`.
        start: the checkpoint that the weights start from: the folder of a run, or the name of a shipped one (`spatialnet-s`).
        weights: of a timm backbone that starts from no checkpoint: a local file, `hub`, or empty for none.
        weights_terms: whose weights those are, and under which licence; the network's own licence says it after its data sets',
            and so does that of every network that starts from this one.
        groups: band groups of the input, as `bands.GROUPS` names them.
        group_dropout: how often each group but one is withheld in training, so that a missing one is answered at run time.
        adapt: what learns: `full`; `frozen`: pooling and heads; `probe`: the heads alone, over the mean of the tokens.
        layer_decay: learning rate of each layer over that of the layer above it (Clark et al. 2020, arXiv 2003.10555).
        stored_side: longest side that images are kept at, in pixels; more where a stage or a teacher sees more. Crops of
            images that are kept no larger than the views are enlarged, hence softer than what the deployed network sees.
        sampling_power: a data set's share of an epoch is its size to this power.
        flips: which symmetries the images have: `all` eight of the square, as seen from above; `horizontal`: left and right alone,
            as seen from the side; `none`, where left and right differ too.
        degraded_share: of the views that `degradation.degrade` spoils. Teachers see the views before that.
        least_crop: side of the smallest crop over that of the image, at full augmentation: the range of scales.
        balance: of the heads' losses: `fixed` weights, `uncertainty` (Kendall et al. 2018, arXiv 1705.07115) or `pcgrad` (Yu et
            al. 2020, arXiv 2001.06782).
        counts: quantity to the labels that it counts, `object_kinds = "objects"`: where nobody counted, the network learns to
            count what it says itself that an image shows, with what is known of it in the place of what it says. Of images that
            are not mixed.
        linear_head: begin with a regularised linear head on the frozen features of `start`, which takes seconds; what follows is
            fine-tuning from it.
        fine_tune: whether to train all weights after the linear head; `auto`: unless it is right on 95 % of the training images
            when it is cross-validated.
        keep_best: end with the weights of the epoch whose held-out loss was lowest, rather than with those of the last epoch.
        patience: stop after so many epochs in which the held-out loss was no lower; 0 for never. Needs `keep_best`.
        class_balance: of a user's own categorical heads: `none`; `sampling` shows every class equally often; `logits` adjusts the
            logits in training (`losses/class_balance.py`); `auto` adjusts them where that lowers the cross-validated loss, averaged
            over the classes, of the linear head. Weights are then chosen by the held-out loss averaged over the classes.
        compile: with torch.compile; worth it for runs of more than some minutes.
        images_on_device: keep the training images in the device's memory and make their views there; for a GPU with room for them.
        precision: as Lightning Fabric names it: `32-true`, `bf16-mixed`, …
    """

    name: str
    backbone: str
    data: dict[str, str]
    stages: Annotated[tuple[TrainingStage, ...], msgspec.Meta(min_length=1)]
    start: str = ""
    weights: str = ""
    weights_terms: str = ""
    groups: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("rgb",)
    group_dropout: Share = 0.0
    adapt: Literal["full", "frozen", "probe"] = "full"
    layer_decay: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    epoch_images: Positive = 20_000
    stored_side: Positive = STORED_SIDE
    sampling_power: Share = 0.6
    batch: Positive = 128
    learning_rate: Above0 = 1.5e-3
    weight_decay: float = 0.05
    warmup_share: Share = 0.05
    label_smoothing: Share = 0.1
    flips: Literal["all", "horizontal", "none"] = "all"
    degraded_share: Share = 0.0
    least_crop: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.6
    mixup_alpha: Above0 = 0.2
    mixup_share: Share = 0.5
    cutmix_share: Share = 0.0
    ema_decay: Share = 0.998
    balance: Literal["fixed", "uncertainty", "pcgrad"] = "fixed"
    head_weights: dict[str, float] = {}
    counts: dict[str, str] = {}
    distillation: Distillation | None = None
    class_balance: Literal["none", "sampling", "logits", "auto"] = "none"
    linear_head: bool = False
    fine_tune: Literal["auto", "always", "never"] = "always"
    keep_best: bool = False
    patience: Annotated[int, msgspec.Meta(ge=0)] = 0
    compile: bool = False
    images_on_device: bool = False
    precision: str = "32-true"

    def __post_init__(self) -> None:
        if self.batch > self.epoch_images:
            raise ValueError(
                f"batch is {self.batch} and epoch_images {self.epoch_images}; an epoch must have at least one batch, so give a "
                f"smaller batch or more images"
            )
        if self.batch % 2:
            raise ValueError(f"batch is {self.batch}; images are mixed in pairs, so give an even number")
        if not self.keep_best and (self.linear_head or self.patience):
            raise ValueError("linear_head and patience choose by held-out loss; give keep_best=true with them")
        if self.class_balance == "auto" and not self.linear_head:
            raise ValueError("class_balance is auto, which the linear head decides; give linear_head=true with it, or logits")
        if self.fine_tune != "always" and not self.linear_head:
            raise ValueError(f"fine_tune is {self.fine_tune}, and there is no linear head; give linear_head=true with it")
        if odd := [stage.size for stage in self.stages if stage.size % 16]:
            raise ValueError(f"a stage has size {odd[0]}; give a multiple of 16")

    @property
    def size(self) -> int:
        """Side of the deployed input, in pixels: that of the last stage."""
        return self.stages[-1].size

    @property
    def epochs(self) -> int:
        return sum(stage.epochs for stage in self.stages)

    def stage_at(self, epoch: int) -> TrainingStage:
        """The stage of an epoch counted from 0, with what it does not say taken from the run."""
        stage = self.stages[-1]
        for stage in self.stages:
            if epoch < stage.epochs:
                break
            epoch -= stage.epochs
        unsaid = [each for each in ("mixup_share", "cutmix_share", "sampling_power") if getattr(stage, each) is None]
        return msgspec.structs.replace(stage, **{each: getattr(self, each) for each in unsaid})


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> TrainConfig:
    """Read and check a TOML file.

    Args:
        overrides: `key=value` with the value as TOML writes it; `distillation.share=0.5` reaches into a section. A value that is
            not TOML is taken as text.

    Raises:
        UsageError: an override without `=`.
        ValueError: not TOML, an unknown key, or a value out of range; the message names the key.
    """
    tree: dict[str, Any] = msgspec.toml.decode(path.read_bytes())
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise UsageError(f"--set {override}: give key=value, such as --set learning_rate=1e-3")
        section = tree
        *outer, last = key.strip().split(".")
        for name in outer:
            section = section.setdefault(name, {})
        section[last] = toml_value(text.strip())
    for name in tree:
        if name not in TrainConfig.__struct_fields__:
            raise ValueError(f"no setting '{name}'{suggestion(name)}")
    return msgspec.convert(tree, TrainConfig)


def suggestion(name: str) -> str:
    """What may have been meant by a setting that is not there, in words."""
    known = TrainConfig.__struct_fields__
    of_stages = [each for each in TrainingStage.__struct_fields__ if each not in known]
    if name in of_stages:
        return f"; it belongs to a stage: stages=[{{size=160, epochs=12}}], or --{name} for a run of one stage"
    if near := difflib.get_close_matches(name, known, 3, 0.5):
        return f"; similar ones are {', '.join(near)}"
    return f"; there are {', '.join(known)}"


def toml_value(text: str) -> Any:
    try:
        return msgspec.toml.decode(f"value = {text}".encode())["value"]
    except msgspec.DecodeError:
        return text
