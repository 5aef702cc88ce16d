"""The model contract: inputs and outputs, shared by training, optimize and the runtime.

The types are immutable and validated when they are read from JSON (msgspec). So a manifest that decodes is consistent.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

import msgspec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of RGB in units of full scale. Normalisation is part of the exported graph, never done on the
host."""

Name: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,62}$")]
Label: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=80)]
Probability: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
Temperature: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=100)]
MAX_BOUND = 1e9
"""Limit for the bounds of a quantity. The golden test compares quantities as shares of their range, so an infinite range would
accept anything. The reader of a bundle also refuses a range that is far wider than the golden answers."""
Side: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=8192)]

RESERVED = frozenset(
    {
        "seq",
        "source",
        "frame",
        "heads",
        "age_ms",
        "engine_ms",
        "emitted_ns",
        "quality",
        "late",
        "bundle",
        "absent",
        "predictions",
        "to_dict",
        "known",
        "reason",
        "tiles",
    }
)
"""Attribute names of `FrameResult`; no head may have one of these names."""


EVALUATION_HEADS = frozenset(
    {
        "land_use_eurosat",
        "land_use_ucmerced",
        "land_use_rsscn7",
        "land_use_aid",
        "land_use_nwpu_resisc45",
        "object_kinds",
    }
)
"""Heads of the shipped models that serve evaluation: classes of a single data set, and a count of kinds. Others are for people."""


class Contract(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all types in a manifest: immutable, and strict about unknown fields."""


Gsd: TypeAlias = tuple[Annotated[float, msgspec.Meta(gt=0, le=1e6)], Annotated[float, msgspec.Meta(gt=0, le=1e6)]]
"""Ground sampling distance that a head was taught at: metres on the ground per pixel of the model's input, smallest and largest."""


def gsd_text(gsd: tuple[float, float] | None) -> str:
    """Metres per pixel of the model's input, for people: `0.53 to 80`, `6.7`, or a dash if not stated."""
    if gsd is None:
        return "—"
    return " to ".join(dict.fromkeys(f"{metres:.2g}" for metres in gsd))


class Multiclass(Contract, frozen=True, tag_field="kind", tag="multiclass"):
    """Head with exactly one correct label. The output is a softmax, float32 `[N, len(labels)]`; each row sums to 1.

    Attributes:
        temperature: the graph divides the logits by this (Guo et al. 2017); recorded for information.
        abstain_below: there is no label if the highest probability is below this.
        gsd: see `Gsd`; None if not stated.
    """

    name: Name
    labels: tuple[Label, ...]
    temperature: Temperature = 1.0
    abstain_below: Probability = 0.0
    gsd: Gsd | None = None

    def __post_init__(self) -> None:
        _check_gsd(self.name, self.gsd)
        _check_labels(self.name, self.labels, least=2)

    @property
    def width(self) -> int:
        return len(self.labels)


class Multilabel(Contract, frozen=True, tag_field="kind", tag="multilabel"):
    """Head with any number of correct labels. The output is a sigmoid per label, float32 `[N, len(labels)]` in 0 to 1.

    Attributes:
        thresholds: per label, the probability from which it is reported as present.
        gsd: see `Gsd`; None if not stated.
    """

    name: Name
    labels: tuple[Label, ...]
    thresholds: tuple[Probability, ...]
    temperature: Temperature = 1.0
    gsd: Gsd | None = None

    def __post_init__(self) -> None:
        _check_gsd(self.name, self.gsd)
        _check_labels(self.name, self.labels, least=1)
        if len(self.thresholds) != len(self.labels):
            raise ValueError(
                f"head '{self.name}' has {len(self.labels)} labels and {len(self.thresholds)} thresholds; give one for each"
            )

    @property
    def width(self) -> int:
        return len(self.labels)


class Regression(Contract, frozen=True, tag_field="kind", tag="regression"):
    """Head for a quantity, such as a count; float32 `[N, 1]`.

    Attributes:
        unit: of the value, for people.
        low, high: outputs outside this range are invalid.
        gsd: see `Gsd`; None if not stated.
    """

    name: Name
    unit: str
    low: float
    high: float
    gsd: Gsd | None = None

    def __post_init__(self) -> None:
        _check_gsd(self.name, self.gsd)
        for bound in (self.low, self.high):
            if not abs(bound) <= MAX_BOUND:  # this form also refuses NaN
                raise ValueError(
                    f"head '{self.name}' has the bound {bound}; expected a number from -{MAX_BOUND:g} to {MAX_BOUND:g}"
                )
        if not self.low < self.high:
            raise ValueError(f"head '{self.name}' has low {self.low} and high {self.high}; low must be less")

    @property
    def width(self) -> int:
        return 1


Head: TypeAlias = Multiclass | Multilabel | Regression

KNOWN = "known"
"""Name of the output that measures how much a picture resembles the training images."""


class Known(Contract, frozen=True):
    """The output `known`: how much a picture resembles the training images. A sigmoid, float32 `[N, 1]` in 0 to 1.

    Attributes:
        threshold: below it no head gives a label. Chosen on held-out training images (3 % of them are below it).
    """

    threshold: Probability

    @property
    def name(self) -> str:
        return KNOWN

    @property
    def width(self) -> int:
        return 1


Output: TypeAlias = Head | Known
"""One output tensor of the deployed graph: float32 `[N, width]`, with the head's name."""


class PhysicalRange(Contract, frozen=True):
    """The physical range of a band's 256 levels: level 0 is `low`, level 255 is `high`, in `unit`; linear in between."""

    unit: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(
                f"a band's range goes from {self.low} to {self.high}; expected two finite numbers, the lower one first"
            )


class BandGroup(Contract, frozen=True, omit_defaults=True):
    """Bands of one sensor, in channel order: `rgb` has red, green and blue.

    Attributes:
        ranges: the physical range of each band; empty for camera levels, which have no unit.
    """

    name: Name
    bands: tuple[Name, ...]
    ranges: tuple[PhysicalRange, ...] = ()

    def __post_init__(self) -> None:
        if self.ranges and len(self.ranges) != len(self.bands):
            raise ValueError(
                f"group '{self.name}' has {len(self.bands)} bands and {len(self.ranges)} ranges; give one for each"
            )


class InputSpec(Contract, frozen=True, omit_defaults=True):
    """The image tensor: uint8 `[N, height, width, channels]`; the channels are the bands of the groups, in order.

    Attributes:
        resize: how a frame of another size is resized to `height` × `width`. `area`: averaged over areas along a side that
            shrinks, linear along one that grows. `stretch` (for bundles older than `area`): both sides are halved (mean over
            2×2 pixels) while both are at least three times the input's, then resized as by `area`. swscale resizes a decoder's
            picture from its planes; the result differs from an array's by about one level.
        value_range: the pixel values that became levels 0 and 255 in training, for still images of more than 8 bits; None if
            training had no such images.
    """

    height: Side
    width: Side
    groups: tuple[BandGroup, ...]
    resize: Literal["area", "stretch"] = "area"
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.value_range is not None and not -math.inf < self.value_range[0] < self.value_range[1] < math.inf:
            low, high = self.value_range
            raise ValueError(f"the value range is {low} to {high}; expected two finite numbers, the lower one first")

    @property
    def channels(self) -> int:
        return sum(len(group.bands) for group in self.groups)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.height, self.width, self.channels)


RGB = BandGroup(name="rgb", bands=("red", "green", "blue"))

IMAGE_INPUT = "image"
"""Name of the deployed graph's only input; each output has its head's name."""


class ModelSpec(Contract, frozen=True):
    """A model's name, its input, and its heads in output order.

    Attributes:
        known: None if the model has no output `known`.
    """

    name: Label
    input: InputSpec
    heads: tuple[Head, ...] = msgspec.field(name="tasks")
    known: Known | None = None

    def __post_init__(self) -> None:
        names = [head.name for head in self.heads]
        if not names:
            raise ValueError("a model needs at least one head")
        if duplicates := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"head names must be unique; found twice: {', '.join(sorted(duplicates))}")
        if clashes := RESERVED & set(names):
            raise ValueError(f"head name '{min(clashes)}' is reserved; rename the head")

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Every output of the deployed graph, in order: the heads, then `known` if the model has it."""
        return self.heads if self.known is None else (*self.heads, self.known)

    def head(self, name: str) -> Head:
        """The head of this name.

        Raises:
            KeyError: no such head; the message lists the heads.
        """
        for head in self.heads:
            if head.name == name:
                return head
        raise KeyError(f"no head '{name}'; this model has {', '.join(head.name for head in self.heads)}")

    @property
    def main_heads(self) -> tuple[str, ...]:
        """Names of the heads that people are shown: all but `EVALUATION_HEADS`, or all where the model has no other."""
        names = tuple(head.name for head in self.heads)
        return tuple(name for name in names if name not in EVALUATION_HEADS) or names

    def keep(self, names: tuple[str, ...]) -> ModelSpec:
        """The same model with only these heads, in the given order."""
        return msgspec.structs.replace(self, heads=tuple(self.head(name) for name in names))


def _check_labels(head: str, labels: tuple[str, ...], least: int) -> None:
    if len(labels) < least:
        raise ValueError(f"head '{head}' has {len(labels)} labels; it needs at least {least}")
    if len(set(labels)) != len(labels):
        repeated = sorted({label for label in labels if labels.count(label) > 1})
        raise ValueError(f"head '{head}' has a label twice: {', '.join(repeated)}")


def _check_gsd(head: str, gsd: tuple[float, float] | None) -> None:
    if gsd is not None and gsd[0] > gsd[1]:
        raise ValueError(f"head '{head}' has the ground sampling distances {gsd[0]} to {gsd[1]}; give the smaller one first")
