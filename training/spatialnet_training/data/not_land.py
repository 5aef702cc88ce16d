"""Generated pictures without land: failed captures and content that a land-use model does not know.

Real pictures without land (clouds, the Earth's limb, space, sun flare) are in `not_land.zip`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from spatialnet_training.data.degradation import to_levels

Image = NDArray[np.uint8]
WORDS = (
    "NO SIGNAL",
    "camera",
    "Standby",
    "telemetry 04:17",
    "altitude",
    "battery 83 %",
    "The quick brown fox",
    "ERROR",
    "GPS",
    "menu",
)


def black(side: int, rng: Generator) -> Image:
    """Closed lens: up to 14 grey levels of noise, and in half of the pictures a vignette or a light leak."""
    level = rng.uniform(0, 10) + np.abs(rng.standard_normal((side, side, 3))) * rng.uniform(0, 5)
    if rng.random() < 0.5:
        level = level + rng.uniform(5, 60) * _blob(side, rng, rng.uniform(0.1, 0.4))[..., None] * rng.uniform(0.3, 1, 3)
    return to_levels(level)


def saturated(side: int, rng: Generator) -> Image:
    """Overexposure: white, in half of the pictures with a darker corner."""
    level = rng.uniform(235, 255) + rng.standard_normal((side, side, 3)) * rng.uniform(0, 4)
    if rng.random() < 0.5:
        level = level - rng.uniform(10, 120) * _blob(side, rng, rng.uniform(0.2, 0.6))[..., None]
    return to_levels(level)


def flat(side: int, rng: Generator) -> Image:
    """One colour with sensor noise."""
    return to_levels(rng.uniform(0, 255, 3) + rng.standard_normal((side, side, 3)) * rng.uniform(0, 3))


def gradient(side: int, rng: Generator) -> Image:
    """A gradient between two colours, in any direction."""
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[0:side, 0:side] / side - 0.5
    share = np.clip(0.5 + np.cos(angle) * columns + np.sin(angle) * rows, 0, 1)[..., None] ** rng.uniform(0.5, 2)
    return to_levels(
        rng.uniform(0, 255, 3) * share + rng.uniform(0, 255, 3) * (1 - share) + rng.standard_normal((side, side, 3))
    )


def static(side: int, rng: Generator) -> Image:
    """Noise without a picture, grey or coloured, fine or coarse."""
    cells = max(4, int(side / rng.choice([1, 1, 2, 4, 8])))
    grain = rng.uniform(0, 255, (cells, cells, int(rng.choice([1, 3])))).astype(np.float32)
    grain = grain if rng.random() < 0.5 else np.clip(128 + (grain - 128) * rng.uniform(0.2, 1), 0, 255)
    grown = cv2.resize(grain, (side, side), interpolation=cv2.INTER_NEAREST if rng.random() < 0.5 else cv2.INTER_LINEAR)
    return to_levels(np.broadcast_to(grown.reshape(side, side, -1), (side, side, 3)))


def text(side: int, rng: Generator) -> Image:
    """A page, a screen or an overlay of text."""
    paper, ink = (
        (rng.uniform(200, 255, 3), rng.uniform(0, 90, 3))
        if rng.random() < 0.6
        else (rng.uniform(0, 70, 3), rng.uniform(150, 255, 3))
    )
    page = np.ascontiguousarray(np.broadcast_to(paper, (side, side, 3)), np.uint8)
    scale, line = rng.uniform(0.25, 1.2) * side / 160, 0.0
    while line < side:
        line += 28 * scale
        words = " ".join(str(word) for word in rng.choice(WORDS, 6))
        place = (int(rng.uniform(-10, side * 0.2)), int(line))
        cv2.putText(
            page, words, place, int(rng.choice([0, 1, 2, 3, 4])), scale, ink.tolist(), max(1, round(1.5 * scale)), cv2.LINE_AA
        )
    return page


def sky(side: int, rng: Generator) -> Image:
    """Sky: blue above, brighter below, in most pictures with soft clouds."""
    share = (np.linspace(0, 1, side) ** rng.uniform(0.5, 2))[:, None, None]
    picture = (
        np.array([40, 95, 175]) * rng.uniform(0.6, 1.3) * (1 - share)
        + np.array([175, 205, 235]) * rng.uniform(0.7, 1.08) * share
    )
    if rng.random() < 0.7:
        clouds = np.clip(_turbulence(side, rng) - rng.uniform(0.3, 0.6), 0, 1)[..., None] * rng.uniform(1, 3)
        picture = picture * (1 - np.clip(clouds, 0, 1)) + rng.uniform(200, 255) * np.clip(clouds, 0, 1)
    return to_levels(np.rot90(np.broadcast_to(picture, (side, side, 3)), int(rng.integers(4))))


def bands(side: int, rng: Generator) -> Image:
    """Rolling-shutter bands under flickering light, colour bars, or lines of a failed transmission."""
    count = int(rng.integers(2, 24))
    colours = rng.uniform(0, 255, (count, 3 if rng.random() < 0.5 else 1))
    rows = np.repeat(colours, side // count + 1, axis=0)[:side]
    if rng.random() < 0.5:
        rows = cv2.GaussianBlur(rows.reshape(side, 1, -1), (0, 0), side / count / 3).reshape(side, -1)
    picture = np.broadcast_to(rows.reshape(side, 1, -1), (side, side, 3)) + rng.standard_normal((side, side, 3)) * rng.uniform(
        0, 12
    )
    return to_levels(np.rot90(picture, int(rng.integers(2))))


def clutter(side: int, rng: Generator) -> Image:
    """Overlapping shapes of every size (dead leaves, Lee et al. 2001): the statistics of pictures taken on the ground."""
    vividness = rng.uniform(0.05, 1)
    picture = np.ascontiguousarray(np.broadcast_to(_colour(rng, vividness), (side, side, 3)), np.float32)
    for radius in np.sort(side * 0.5 * rng.pareto(2.0, int(rng.integers(30, 200))).clip(0.01, 1))[::-1]:
        centre, colour = rng.uniform(0, side, 2), _colour(rng, vividness).tolist()
        corners = int(rng.integers(3, 9))
        turns = np.sort(rng.uniform(0, 2 * np.pi, corners))
        outline = centre + radius * rng.uniform(0.6, 1.2, (corners, 1)) * np.stack([np.cos(turns), np.sin(turns)], axis=1)
        if rng.random() < 0.5:
            cv2.circle(picture, centre.astype(int).tolist(), max(1, int(radius)), colour, -1, cv2.LINE_AA)
        else:
            cv2.fillPoly(picture, [outline.astype(np.int32)], colour, cv2.LINE_AA)
    shade = 0.6 + 0.8 * _blob(side, rng, rng.uniform(0.3, 0.8))[..., None]
    return to_levels(cv2.GaussianBlur(picture * shade, (0, 0), rng.uniform(0.3, 1.5)))


def defocused(image: Image, rng: Generator) -> Image:
    """A picture that is so defocused that only its colours remain: uint8 `[H, W, 3]`."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), max(image.shape[:2]) * rng.uniform(0.09, 0.3)), np.uint8)


Kind = Callable[[int, Generator], Image]
KINDS: dict[str, Kind] = {
    each.__name__: each for each in (black, saturated, flat, gradient, static, text, sky, bands, clutter)
}


def generated(count: int, side: int, seed: int, ordinary: Sequence[Image] = ()) -> list[tuple[str, Image]]:
    """`count` pictures of each kind, with the kind's name: uint8 `[side, side, 3]`; deterministic for a seed.

    Args:
        ordinary: pictures to defocus, as one more kind; empty: without this kind.
    """
    made = [
        (name, make(side, default_rng([seed, place, index])))
        for place, (name, make) in enumerate(KINDS.items())
        for index in range(count)
    ]
    for index in range(count if ordinary else 0):
        rng = default_rng([seed, len(KINDS), index])
        made.append(("defocused", defocused(ordinary[int(rng.integers(len(ordinary)))], rng)))
    return made


def _colour(rng: Generator, vividness: float) -> NDArray[np.float64]:
    """A random colour, 0 to 255 in each band; grey for a vividness of 0."""
    return np.clip(rng.uniform(0, 255) + vividness * rng.uniform(-128, 128, 3), 0, 255)


def _blob(side: int, rng: Generator, width: float) -> NDArray[np.float64]:
    """A bright spot with soft edges, 0 to 1."""
    rows, columns = np.mgrid[0:side, 0:side] / side
    row, column = rng.uniform(-0.2, 1.2, 2)
    return np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2))


def _turbulence(side: int, rng: Generator) -> NDArray[np.float64]:
    """Noise at several scales, about 0 to 1."""
    total = np.zeros((side, side))
    for octave in range(2, 6):
        grain = rng.uniform(0, 1, (2**octave, 2**octave)).astype(np.float32)
        total += cv2.resize(grain, (side, side), interpolation=cv2.INTER_CUBIC) / 2 ** (octave - 1)
    return total / 0.94
