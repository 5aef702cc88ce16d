"""How a user's data set is to be read: what its folders and columns mean, and what its pixel values stand for."""

from __future__ import annotations

from typing import Literal

import msgspec

NO_GROUPS = "none"
"""The value of `group` for images that are independent of each other, whatever their EXIF data says."""


class DatasetOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Options that training, building and evaluating must share, so that they see the same labels and the same splits.

    Attributes:
        classes_from: `first`: the first folder below the split is the class, as torchvision's ImageFolder has it; `deepest`: the
            folder directly above the image.
        group: images of one group are never on both sides of a split. A regular expression that is searched in the path (its
            first bracket, else the whole match, names the group), the name of a table's column, or `none`. None: by the time
            and the position in the EXIF data, where most images have them.
        value_range: the pixel values that become 0 and 255; needed for images of more than 8 bits.
        columns: of a table, the only columns to learn; empty for all.
        ignore: of a table, columns that are no labels.
        regression: of a table, columns of numbers that are quantities rather than classes.
        labels: the only class names to accept; empty for all.
    """

    classes_from: Literal["first", "deepest"] = "first"
    group: str | None = None
    value_range: tuple[float, float] | None = None
    columns: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    regression: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            low, high = self.value_range
            raise ValueError(f"the range is {low:g} to {high:g}; the first value must be less than the second")


DEFAULTS = DatasetOptions()
