"""Training configuration: one TOML file with all settings of a run. The command line can override each of them."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.spec import RGB
from spatialnet_training.data.samples import STORED_SIDE

Positive = Annotated[int, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Above0 = Annotated[float, msgspec.Meta(gt=0)]


SELF = "self"
"""Name of the teacher that is the run's own averaged weights."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all sections: immutable; unknown keys are refused."""


class TrainingStage(Section, frozen=True):
    """A number of epochs at one image size (progressive resizing); stages may change augmentation, mixing and sampling."""

    size: Positive
    epochs: Positive
    augmentation: Share = 1.0
    mixup_share: Share | None = None
    cutmix_share: Share | None = None
    sampling_power: Share | None = None


class TaughtBy(Section, frozen=True):
    """A teacher with its own options.

    Attributes:
        checkpoint: the folder of a run, the name of a shipped one (`spatialnet-s`), or `self`.
        datasets: data sets that the teacher was trained on, as named in `[data]`; it does not teach on images of others.
            Empty: all.
        use_on_unlabelled: whether it teaches on unlabelled images.
        weight: relative to the other teachers of the same image.
        random_orientation: rotate and mirror each batch to one of the square's eight orientations, at random. The loss is
            linear in the teacher's probabilities, so the student learns the mean over the eight orientations at the cost of
            one.
        size: side in pixels of the teacher's input; None: the size that it was trained at. A network that was trained on crops
            is more accurate at a somewhat larger size (Touvron et al. 2019, arXiv 1906.06423). Not for `self`, which gets the
            student's input.
    """

    checkpoint: str
    datasets: tuple[str, ...] = ()
    use_on_unlabelled: bool = True
    weight: Above0 = 1.0
    random_orientation: bool = False
    size: Positive | None = None

    def __post_init__(self) -> None:
        if self.checkpoint == SELF and self.size is not None:
            raise ValueError(f"the teacher 'self' has size {self.size}; it gets the student's input, so remove size")


class Distillation(Section, frozen=True):
    """Knowledge distillation (Hinton et al. 2015, arXiv 1503.02531).

    Attributes:
        teachers: checkpoints whose probabilities are averaged. Each gets the student's views at its own input size. `self` is
            the run's own averaged weights (Tarvainen and Valpola 2017, arXiv 1703.01780). A table gives further options: see
            `TaughtBy`.
        share: weight of the teachers' loss on labelled images, 0 to 1.
        temperature: softens both distributions.
        other_heads_weight: weight of a head's soft labels on images that have no label for that head.
        relations: weight of the similarity-preserving loss (Tung and Mori 2019, arXiv 1907.09682).
        unlabelled: a folder or zip of any images; the teachers label them.
        unlabelled_terms: owner and licence of these images, for the network's licence line.
        unlabelled_share: share of unlabelled images in every batch.
        unlabelled_tile: side in pixels of tiles. Images are cut into tiles at every scale (`tiles.pyramid`), so a large one
            gives many images. 0: no tiles.
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
        """The teachers, each as a `TaughtBy`."""
        return tuple(TaughtBy(each) if isinstance(each, str) else each for each in self.teachers)


class TrainConfig(Section, frozen=True):
    """All settings of a training run. See `configs/` for commented examples.

    Attributes:
        backbone: a preset of `backbones.PRESETS`, `timm:NAME`, or `timm-trunk:NAME`.
        start: the initial checkpoint: the folder of a run, or the name of a shipped one (`spatialnet-s`).
        weights: pretrained weights of a timm backbone without `start`: a local file, `hub`, or empty for none.
        weights_terms: owner and licence of these weights. They are added to the licence line of the network and of every
            network that starts from it.
        groups: band groups of the input, as `bands.GROUPS` names them.
        group_dropout: probability with which training drops each group (except one), so that the network works without it.
        band_dropout: the same for each band of a measured group of several bands (except one), such as one polarisation of radar.
        adapt: trainable layers: `full`; `frozen`: pooling and heads; `probe`: only the heads, on the mean of the tokens.
        layer_decay: ratio of each layer's learning rate to that of the next layer (Clark et al. 2020, arXiv 2003.10555).
        stored_side: longest side of the images in memory, in pixels; larger if a stage or a teacher needs it. Crops of images
            that are not larger than the network's input are enlarged, and so softer than images at run time.
        sampling_power: a data set's share of an epoch is proportional to its size to this power.
        flips: symmetries of the images: `all` eight of the square (seen from above); `horizontal`: mirrored left to right (seen
            from the side); `none`.
        degraded_share: share of the views whose group `rgb` `degradation.degrade` modifies. Teachers get the unmodified views.
        least_crop: side of the smallest crop relative to the image, at full augmentation.
        balance: weighting of the heads' losses: `fixed` weights, `uncertainty` (Kendall et al. 2018, arXiv 1705.07115) or
            `pcgrad` (Yu et al. 2020, arXiv 2001.06782).
        counts: quantity to the labels that it counts, `object_kinds = "objects"`. For an image without a count, the target is
            the expected count by the network's own probabilities, with known labels in place of probabilities. Mixed images are
            excluded.
        linear_head: begin with a regularised linear head on the frozen features of `start`, which takes seconds; fine-tuning
            starts from it.
        fine_tune: whether to train all weights after the linear head. `auto`: only if its loss on held-out training images is
            above `selection.LITTLE_LOSS`. The weights with the lower held-out loss are kept.
        keep_best: keep the weights of the epoch with the lowest held-out loss instead of the last epoch.
        patience: stop after this many epochs without a lower held-out loss; 0: never. Requires `keep_best`.
        class_balance: for a user's own categorical heads: `none`; `sampling` draws every class equally often; `logits` adjusts
            the logits in training (`losses/class_balance.py`); `auto` adjusts them if that lowers the linear head's
            cross-validated loss, averaged over the classes. Weights are then chosen by the class-averaged held-out loss.
        compile: use torch.compile; useful for runs longer than some minutes.
        images_on_device: keep the training images in the device's memory and compute views there; for a GPU with enough memory.
        precision: in Lightning Fabric's notation: `32-true`, `bf16-mixed`, …
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
    band_dropout: Share = 0.0
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
                f"batch is {self.batch} and epoch_images {self.epoch_images}; an epoch must have at least one batch, so "
                "give a smaller batch or more images"
            )
        if self.batch % 2:
            raise ValueError(f"batch is {self.batch}; images are mixed in pairs, so give an even number")
        if self.degraded_share and RGB.name not in self.groups:
            raise ValueError(
                f"degraded_share degrades the group {RGB.name}, but groups are {', '.join(self.groups)}; give degraded_share=0"
            )
        if not self.keep_best and (self.linear_head or self.patience):
            raise ValueError("linear_head and patience choose by held-out loss; give keep_best=true with them")
        if self.class_balance == "auto" and not self.linear_head:
            raise ValueError(
                "class_balance=auto needs the linear head; give linear_head=true with it, or class_balance=logits"
            )
        if self.fine_tune != "always" and not self.linear_head:
            raise ValueError(f"fine_tune is {self.fine_tune}, but there is no linear head; give linear_head=true with it")
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
        """The stage of an epoch counted from 0; unset values are those of the run."""
        stage = self.stages[-1]
        for stage in self.stages:
            if epoch < stage.epochs:
                break
            epoch -= stage.epochs
        unsaid = [each for each in ("mixup_share", "cutmix_share", "sampling_power") if getattr(stage, each) is None]
        return msgspec.structs.replace(stage, **{each: getattr(self, each) for each in unsaid})


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> TrainConfig:
    """Read and validate a TOML file.

    Args:
        overrides: `key=value` with a TOML value; `distillation.share=0.5` sets a key of a section. A value that is not TOML is
            used as text.

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
    """A suggestion for an unknown setting."""
    known = TrainConfig.__struct_fields__
    of_stages = [each for each in TrainingStage.__struct_fields__ if each not in known]
    if name in of_stages:
        return f"; it belongs to a stage: stages=[{{size=160, epochs=12}}], or --{name} for a run of one stage"
    if near := difflib.get_close_matches(name, known, 3, 0.5):
        return f"; similar ones are {', '.join(near)}"
    return f"; available: {', '.join(known)}"


def toml_value(text: str) -> Any:
    try:
        return msgspec.toml.decode(f"value = {text}".encode())["value"]
    except msgspec.DecodeError:
        return text
