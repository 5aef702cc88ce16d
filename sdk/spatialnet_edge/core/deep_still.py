"""Still images of more than 8 bits a channel: 12-bit sensors in 16-bit files, reflectances as floats.

Which numbers stand for black and white the file does not say. The model does (`InputSpec.value_range`), or who runs it
(`StreamOptions.value_range`). Training scales by the same function.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any, TypeAlias, cast, final

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import SourceRefused, UsageError
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.core.still_decoder import MAX_PIXELS, NotDecoded, tiff_layout

try:
    import cv2
except ImportError:  # not installed, or built for another NumPy
    cv2 = None

ValueRange: TypeAlias = tuple[float, float]
"""The pixel values that become levels 0 and 255."""

PNG = b"\x89PNG\r\n\x1a\n"
PNG_DEPTH_AT = 24
"""Where the bit depth stands in a PNG file (ISO/IEC 15948, section 11.2.2)."""
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MOST_BANDS = 4
"""A file of more bands is no photograph; `scene:` reads rasters."""
RANGE_HINT = "give the values of black and white with --range LOW,HIGH, such as 0,4095 for a 12-bit sensor"


@final
class DeepPicture:
    """Pixel values as the file has them, float32 `[H, W, bands]`. They have no levels until a range is given."""

    def __init__(self, values: NDArray[np.float32], depth: str) -> None:
        self.values = values
        self.depth = depth

    @property
    def height(self) -> int:
        return self.values.shape[0]

    @property
    def width(self) -> int:
        return self.values.shape[1]

    def at(self, height: int, width: int) -> NDArray[np.uint8]:
        """Raises `SourceRefused`: no range was given."""
        raise SourceRefused(self.missing_range)

    def rgb(self) -> NDArray[np.uint8]:
        """Raises `SourceRefused`: no range was given."""
        raise SourceRefused(self.missing_range)

    @property
    def missing_range(self) -> str:
        return f"its pixels are {self.depth}, and neither the model nor an option says what they mean; {RANGE_HINT}"


def with_levels(frame: Frame, value_range: ValueRange | None, bands: int) -> Frame | Skipped:
    """A frame whose pixels are levels from 0 to 255; one of a deep picture is scaled by the range, or skipped without one.

    Args:
        value_range: None where it is not known.
        bands: of the model. A file of four bands keeps the fourth only for a model of four.
    """
    picture = frame.image
    if not isinstance(picture, DeepPicture):
        return frame
    if value_range is None:
        return Skipped(frame.seq, "format", f"{frame.source}: {picture.missing_range}")
    levels = scaled(picture.values, value_range)
    if levels.shape[2] == 1:
        levels = np.repeat(levels, 3, axis=2)
    if levels.shape[2] != bands:
        levels = levels[..., :3]
    return replace(frame, image=np.ascontiguousarray(levels))


def depth_of(encoded: bytes) -> str | None:
    """What the pixels of a PNG or TIFF are when they have more than 8 bits and one, three or four bands, such as `uint16`.

    None for every other file.
    """
    if encoded.startswith(PNG):
        return "uint16" if encoded[PNG_DEPTH_AT : PNG_DEPTH_AT + 1] == b"\x10" else None
    if not encoded.startswith(TIFF):
        return None
    try:
        bits, bands, kind = tiff_layout(encoded)
    except NotDecoded:
        return None
    return f"{kind}{bits}" if bits > 8 and bands <= MOST_BANDS and kind != "other" else None


def decode_deep(encoded: bytes) -> NDArray[np.float32]:
    """The values of a PNG or TIFF as they are: float32 `[H, W, bands]`, red first.

    Raises:
        NotDecoded: damaged, too large, or colour where OpenCV is not installed.
    """
    from PIL import Image

    try:
        opened: Any = Image.open(io.BytesIO(encoded), formats=["PNG", "TIFF"])
        with opened as image:
            width, height = cast("tuple[int, int]", image.size)
            if width * height > MAX_PIXELS:
                raise NotDecoded(f"too large: {width}×{height} pixels; at most {MAX_PIXELS} are decoded at once")
            if cv2 is None:
                return grey_by_pillow(image)
    except NotDecoded:
        raise
    except Image.UnidentifiedImageError:
        pass  # Pillow knows no 16-bit colour of some layouts; OpenCV has limits of its own
    except (Exception, MemoryError) as error:
        raise NotDecoded(f"damaged: {error or type(error).__name__}; it begins with {encoded[:16]!r}") from error
    if cv2 is None:
        raise NotDecoded(NEEDS_OPENCV)
    return by_opencv(encoded)


NEEDS_OPENCV = "colours of more than 8 bits need OpenCV: pip install 'spatialnet-edge[opencv]'"


def grey_by_pillow(image: Any) -> NDArray[np.float32]:
    """One band, for computers without OpenCV.

    Raises:
        NotDecoded: several bands.
    """
    if image.mode not in ("I", "I;16", "I;16B", "I;16L", "F"):
        raise NotDecoded(NEEDS_OPENCV)
    return np.asarray(image, np.float32)[..., None]


def by_opencv(encoded: bytes) -> NDArray[np.float32]:
    """The values, by OpenCV: float32 `[H, W, bands]`, red first.

    Raises:
        NotDecoded: OpenCV cannot read it.
    """
    assert cv2 is not None
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    except (cv2.error, MemoryError) as error:
        raise NotDecoded(f"damaged: {error}") from error
    found: NDArray[np.float32] | None = None if image is None else np.asarray(image, np.float32)
    if found is None:
        raise NotDecoded(f"damaged; it begins with {encoded[:16]!r}")
    if found.ndim == 2:
        return found[..., None]
    return found[..., [2, 1, 0, *range(3, found.shape[2])]] if found.shape[2] >= 3 else found[..., :1]


def scaled(values: NDArray[np.float32], value_range: ValueRange) -> NDArray[np.uint8]:
    """Levels: the range becomes 0 to 255, what lies outside is cut off, no number (NaN) becomes 0."""
    low, high = value_range
    known: NDArray[np.float32] = np.where(np.isnan(values), np.float32(low), values)
    levels = np.minimum(np.maximum((known - np.float32(low)) * np.float32(255 / (high - low)), 0), 255)
    return np.rint(levels).astype(np.uint8)


def parse_range(text: str, option: str) -> ValueRange:
    """`LOW,HIGH` as two numbers.

    Raises:
        UsageError: not two numbers, or the first is not less than the second.
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{option} {text}: give two numbers with a comma between them, such as 0,4095") from error
    if not low < high:
        raise UsageError(f"{option} {text}: the first number must be less than the second")
    return low, high
