"""What a model takes and what it answers: the contract that training, optimize and the runtime share.

The types are immutable and check themselves when they are read from JSON (msgspec), so a manifest that decodes is a manifest
that makes sense.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

import msgspec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and deviation of RGB in units of full scale; part of the exported graph, never done on the host."""

Name: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,62}$")]
Label: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=80)]
Probability: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
Temperature: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=100)]
MAX_BOUND = 1e9
"""Of a quantity. The golden test compares quantities as shares of their range, so that an endless range would pass anything."""
Side: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=8192)]

RESERVED = frozenset(
    {
        "seq",
        "source",
        "frame",
        "age_ms",
        "engine_ms",
        "emitted_ns",
        "quality",
        "late",
        "bundle",
        "predictions",
        "to_dict",
        "known",
        "reason",
    }
)
"""Attributes of a frame's result, which no head may be named after."""


class Contract(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Immutable, strict about unknown fields; the base of all that is written to a manifest."""


class Multiclass(Contract, frozen=True, tag_field="kind", tag="multiclass"):
    """Exactly one label is right; the output is a softmax, float32 `[N, len(labels)]`, each row summing to 1.

    Attributes:
        temperature: the logits were divided by this in the graph (Guo et al. 2017); kept for the record.
        abstain_below: the answer is "no label" when the highest probability is lower than this.
    """

    name: Name
    labels: tuple[Label, ...]
    temperature: Temperature = 1.0
    abstain_below: Probability = 0.0

    def __post_init__(self) -> None:
        _check_labels(self.name, self.labels, least=2)

    @property
    def width(self) -> int:
        return len(self.labels)


class Multilabel(Contract, frozen=True, tag_field="kind", tag="multilabel"):
    """Any number of labels is right; the output is a sigmoid for each, float32 `[N, len(labels)]` in 0 to 1.

    Attributes:
        thresholds: for each label, the probability from which on it is reported as present.
    """

    name: Name
    labels: tuple[Label, ...]
    thresholds: tuple[Probability, ...]
    temperature: Temperature = 1.0

    def __post_init__(self) -> None:
        _check_labels(self.name, self.labels, least=1)
        if len(self.thresholds) != len(self.labels):
            raise ValueError(
                f"head '{self.name}' has {len(self.labels)} labels and {len(self.thresholds)} thresholds; give one for each"
            )

    @property
    def width(self) -> int:
        return len(self.labels)


class Regression(Contract, frozen=True, tag_field="kind", tag="regression"):
    """A quantity, such as a count; float32 `[N, 1]`.

    Attributes:
        unit: of the value, for people.
        low, high: answers outside are impossible and make the frame's output invalid.
    """

    name: Name
    unit: str
    low: float
    high: float

    def __post_init__(self) -> None:
        for bound in (self.low, self.high):
            if not abs(bound) <= MAX_BOUND:  # so written that a NaN is refused
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
"""Name of the output that says how much a picture resembles what the model was taught."""


class Known(Contract, frozen=True):
    """How much a picture resembles what the model was taught; the output `known` is a sigmoid, float32 `[N, 1]` in 0 to 1.

    Attributes:
        threshold: below this no head gives a label. It was chosen on held-out training images (3 % of them lie below it).
    """

    threshold: Probability

    @property
    def name(self) -> str:
        return KNOWN

    @property
    def width(self) -> int:
        return 1


Output: TypeAlias = Head | Known
"""One output tensor of the deployed graph: float32 `[N, width]`, named as the head is."""


class PhysicalRange(Contract, frozen=True):
    """What the 256 levels of a band stand for: level 0 is `low`, level 255 is `high`, in `unit`; in between it is linear."""

    unit: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(
                f"a band's range goes from {self.low} to {self.high}; expected two finite numbers, the lower one first"
            )


class BandGroup(Contract, frozen=True, omit_defaults=True):
    """Bands that one sensor gives together, in channel order: `rgb` has red, green and blue.

    Attributes:
        ranges: the physical range of each band; empty for levels of a camera, which have no unit.
    """

    name: Name
    bands: tuple[Name, ...]
    ranges: tuple[PhysicalRange, ...] = ()

    def __post_init__(self) -> None:
        if self.ranges and len(self.ranges) != len(self.bands):
            raise ValueError(
                f"group '{self.name}' has {len(self.bands)} bands and {len(self.ranges)} ranges; give one for each"
            )


class InputSpec(Contract, frozen=True):
    """The image tensor: uint8 `[N, height, width, channels]`, channels being the groups' bands one after the other.

    Attributes:
        resize: how a frame of another size becomes `height` × `width`. `area`: each side is scaled, a mean over areas where it
            shrinks, linear where it grows. `stretch`, of bundles made before there was `area`: both sides are halved (mean over
            2×2 pixels) while both are at least three times the input's, then scaled as by `area`. A decoder's picture is scaled
            from its own planes by swscale, which differs from the same of an array by about one level.
    """

    height: Side
    width: Side
    groups: tuple[BandGroup, ...]
    resize: Literal["area", "stretch"] = "area"

    @property
    def channels(self) -> int:
        return sum(len(group.bands) for group in self.groups)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.height, self.width, self.channels)


RGB = BandGroup(name="rgb", bands=("red", "green", "blue"))

IMAGE_INPUT = "image"
"""Name of the deployed graph's only input; each output is named as its head is."""


class ModelSpec(Contract, frozen=True):
    """A model's name, its input, and its heads in output order.

    Attributes:
        known: None for a model that cannot tell what it was never taught.
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
        """Every output of the deployed graph, in order: the heads, then `known` where the model has it."""
        return self.heads if self.known is None else (*self.heads, self.known)

    def head(self, name: str) -> Head:
        """The head of this name.

        Raises:
            KeyError: there is none; the message names those there are.
        """
        for head in self.heads:
            if head.name == name:
                return head
        raise KeyError(f"no head '{name}'; this model has {', '.join(head.name for head in self.heads)}")

    def keep(self, names: tuple[str, ...]) -> ModelSpec:
        """The same model with these heads alone, in the given order."""
        return msgspec.structs.replace(self, heads=tuple(self.head(name) for name in names))


def _check_labels(head: str, labels: tuple[str, ...], least: int) -> None:
    if len(labels) < least:
        raise ValueError(f"head '{head}' has {len(labels)} labels; it needs at least {least}")
    if len(set(labels)) != len(labels):
        repeated = sorted({label for label in labels if labels.count(label) > 1})
        raise ValueError(f"head '{head}' names a label twice: {', '.join(repeated)}")
