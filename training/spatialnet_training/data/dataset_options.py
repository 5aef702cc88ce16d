"""Options for reading a user's data set: the meaning of its folders, columns and pixel values."""

from __future__ import annotations

from typing import Literal

import msgspec

NO_GROUPS = "none"
"""Value of `group` for independent images; EXIF data are ignored."""


class DatasetOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Options that training, building and evaluating must share, so that they see the same labels and the same splits.

    Attributes:
        classes_from: `first`: the first folder below the split is the class, as in torchvision's ImageFolder; `deepest`: the
            folder directly above the image.
        group: images of one group are always in the same split. A regular expression searched in the path (its first capture
            group, otherwise the complete match, is the group), the name of a table's column, or `none`. None: by time and
            position in the EXIF data, if most images have them.
        value_range: the pixel values that become 0 and 255; needed for images of more than 8 bits.
        columns: of a table, the columns to learn; empty: all.
        ignore: of a table, columns that are not labels.
        regression: of a table, columns of numbers that are quantities rather than classes.
        tile: for rasters with polygons: the side of a tile in pixels.
        metres_per_pixel: for rasters with polygons: the sampling distance of the tiles; None: the raster's.
        labels: the allowed class names; empty: all.
    """

    classes_from: Literal["first", "deepest"] = "first"
    group: str | None = None
    value_range: tuple[float, float] | None = None
    columns: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    regression: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    tile: int = 128
    metres_per_pixel: float | None = None

    def __post_init__(self) -> None:
        if self.tile < 8:
            raise ValueError(f"a tile of {self.tile} pixels; give at least 8")
        if self.metres_per_pixel is not None and not self.metres_per_pixel > 0:
            raise ValueError(f"the sampling distance is {self.metres_per_pixel:g} m; give more than 0")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            low, high = self.value_range
            raise ValueError(f"the range is {low:g} to {high:g}; the first value must be less than the second")


DEFAULTS = DatasetOptions()
