"""The decoder of still images, for sources, bundles, training and evaluation.

Pillow decodes, and only the formats in `FORMATS`. Another format, such as PostScript, is never passed to its interpreter.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "JPEG2000", "AVIF", "BMP")
"""Pillow's names of the accepted formats. JPEG includes MPO."""
SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".j2k", ".jpx",
        ".avif", ".bmp", ".dib",
    }
)  # fmt: skip
MAX_PIXELS = 89_478_485
"""Limit of pixels; a larger still image is refused by its header. Pillow begins to warn here; decoding takes up to 12 bytes
per pixel."""
MAX_BYTES = 512 << 20
"""Limit of bytes of a still image file."""
SEEN_AS_COLOUR = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
"""Pillow modes with at most 8 bits per channel. The display range of 16-bit sensors is unknown, so they are refused."""
SIGNATURES = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"GIF87a", b"GIF89a", b"\0\0\0\x0cjP  \r\n",
    b"\xff\x4f\xff\x51",
)  # fmt: skip
SAMPLE_FORMATS = {1: "uint", 2: "int", 3: "float"}


class NotDecoded(ValueError):
    """The bytes cannot be decoded as a picture; the message has the reason."""


@dataclass(frozen=True, slots=True, eq=False)
class Still:
    """A decoded image.

    Attributes:
        pixels: uint8 `[H, W, 3]`, RGB, upright.
        note: the part of the file that was used, if not all: "the first of 3 pictures in the file"; otherwise None.
    """

    pixels: NDArray[np.uint8]
    note: str | None = None


def is_still(begin: bytes) -> bool:
    """Whether the first bytes of a file (16 suffice) are those of an image in `FORMATS`."""
    riff = begin[:4] == b"RIFF" and begin[8:12] == b"WEBP"
    avif = begin[4:8] == b"ftyp" and begin[8:12] in (b"avif", b"avis", b"mif1")
    bitmap = begin[:2] == b"BM" and begin[6:10] == b"\0\0\0\0"
    return riff or avif or bitmap or begin.startswith(SIGNATURES)


def decode_still(encoded: bytes, formats: Sequence[str] = FORMATS) -> Still:
    """Decode an image file and turn it upright by its EXIF orientation. Of several pictures the first is used.

    Args:
        formats: Pillow's names of the allowed formats; others are not tried.

    Raises:
        NotDecoded: not an image, damaged, too large, or more than 8 bits per channel; the message says which.
    """
    from PIL import Image, UnidentifiedImageError

    if len(encoded) > MAX_BYTES:
        raise NotDecoded(f"{len(encoded)} bytes; an image has at most {MAX_BYTES}; read a raster in tiles with scene:PATH")
    refuse_deep_pixels(encoded)
    try:
        opened: Any = Image.open(io.BytesIO(encoded), formats=list(formats))
        with opened as image:
            return still_of(image)
    except UnidentifiedImageError as error:
        raise NotDecoded(f"not an image; it begins with {encoded[:16]!r}; expected one of {', '.join(formats)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise NotDecoded(f"too large: {TILES}") from error
    except NotDecoded:
        raise
    except (Exception, MemoryError) as error:  # Pillow's decoders may raise anything for a damaged file
        raise NotDecoded(f"damaged: {error or type(error).__name__}; it begins with {encoded[:16]!r}") from error


TILES = f"at most {MAX_PIXELS} pixels are decoded at once; read it in tiles with scene:PATH (extra geo)"


def still_of(image: Any) -> Still:
    """The pixels of a picture opened by Pillow.

    Raises:
        NotDecoded: too large, or a mode without colours of 8 bits.
    """
    from PIL import ImageOps

    if image.width * image.height > MAX_PIXELS:
        raise NotDecoded(f"too large: {image.width}×{image.height} pixels; {TILES}")
    if image.mode not in SEEN_AS_COLOUR:
        raise NotDecoded(f"pixels of type '{image.mode}'; expected 8 bits per channel; scene:PATH?scale= reads other rasters")
    count = int(getattr(image, "n_frames", 1))
    note = f"the first of {count} pictures in the file" if count > 1 else None
    upright = ImageOps.exif_transpose(image)
    if upright.mode != "RGB":
        upright = upright.convert("RGB")
    return Still(np.asarray(upright, np.uint8), note)


def refuse_deep_pixels(encoded: bytes) -> None:
    """Refuse more than 8 bits per channel, by the header. Pillow would silently use only the high byte of 16-bit colour.

    Raises:
        NotDecoded: more than 8 bits per channel, or a TIFF with bands other than a photograph's.
    """
    bits, bands, kind = 8, 3, "uint"
    if encoded[:8] == b"\x89PNG\r\n\x1a\n":
        bits = int.from_bytes(encoded[24:25], "big")
    elif encoded[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        bits, bands, kind = tiff_layout(encoded)
    elif (start := encoded.find(b"\xff\x4f\xff\x51", 0, 1 << 16)) >= 0 and encoded[:1] in (b"\0", b"\xff"):
        size = encoded[start + 2 :]  # SIZ marker segment, ISO/IEC 15444-1, A.5.1
        bits = (int.from_bytes(size[40:41], "big") & 0x7F) + 1
    if bits > 8 or bands > 4 or kind == "float":
        raise NotDecoded(
            f"{bands} band{'s' * (bands != 1)} of {kind}{bits}; expected 1 to 4 bands of 8 bits, as in a photograph; "
            "scene:PATH?scale= reads rasters (extra geo)"
        )


def tiff_layout(encoded: bytes) -> tuple[int, int, str]:
    """Bits per sample, bands, and sample type of a TIFF's first picture; see `read_tiff_layout`."""
    return read_tiff_layout(io.BytesIO(encoded))


def read_tiff_layout(file: IO[bytes]) -> tuple[int, int, str]:
    """Bits per sample, bands, and sample type of a TIFF's first picture (TIFF 6.0, tags 258, 277, 339), from its header.

    Raises:
        NotDecoded: a damaged header.
    """
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    file.seek(0)
    begin = file.read(16)
    try:
        big = begin[2:3] == b"+" or begin[3:4] == b"+"
        directory: Any = ImageFileDirectory_v2(begin if big else begin[:8])
        file.seek(directory.next)
        directory.load(file)
        bits, bands = directory.get(258, (1,)), directory.get(277, 1)
        kinds = directory.get(339, (1,))
        return max(bits), int(bands), SAMPLE_FORMATS.get(max(kinds), "other")
    except Exception as error:  # Pillow may raise anything for a damaged directory
        raise NotDecoded(f"damaged: {error}; it begins with {begin!r}") from error
