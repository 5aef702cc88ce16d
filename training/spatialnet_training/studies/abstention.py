"""When a bundle abstains: the share of pictures without a label, and with a confident one, for each kind of picture.

    python -m spatialnet_training.studies.abstention BUNDLE DATA_ROOT [--per-set 350]

The pictures were not used for training: `val` images of the colour data sets, as they are and after JPEG of quality 75, the `val`
part of the pictures without land, and everyday pictures that come with scikit-learn and scikit-image (where it is installed).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.random import default_rng
from numpy.typing import NDArray
from rich.table import Table

from spatialnet_edge import load
from spatialnet_edge.api import Model
from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.errors import UsageError
from spatialnet_training.data.corruptions import recompressed
from spatialnet_training.data.dataset_registry import FILES
from spatialnet_training.data.datasets import load_split
from spatialnet_training.data.samples import judging_side
from spatialnet_training.data.taxonomy import load_taxonomy
from spatialnet_training.loop.epoch_judge import spread
from spatialnet_training.studies.known_pictures import real_not_land

Image = NDArray[np.uint8]
CONFIDENT, JPEG_QUALITY, CROP, CROPS_PER_PICTURE = 0.9, 75, 128, 10
EVERYDAY = (
    "astronaut", "camera", "cat", "coffee", "coins", "horse", "rocket", "clock", "colorwheel", "page", "text", "retina",
    "immunohistochemistry", "hubble_deep_field", "brick", "grass", "gravel", "moon",
)  # fmt: skip
"""Pictures of `skimage.data` that come with the package."""


def ordinary(root: Path, side: int, per_set: int) -> Iterator[tuple[str, list[Image]]]:
    """Evenly chosen `val` images of each data set, as they are and after JPEG."""
    for name, file in FILES.items():
        samples = load_split({name: root / file}, load_taxonomy(), "val", side)
        chosen = list(spread(samples, per_set).images)
        yield name, chosen
        yield f"{name}, JPEG {JPEG_QUALITY}", [recompressed(image, JPEG_QUALITY) for image in chosen]


def everyday() -> list[Image]:
    """Everyday pictures of scikit-learn, and of scikit-image where it is installed."""
    from sklearn.datasets import load_sample_images

    found = list(load_sample_images().images)
    try:
        from skimage import data
    except ImportError:
        return found
    for name in EVERYDAY:
        picture = np.asarray(getattr(data, name)())
        grey = picture.ndim == 2
        found.append(np.repeat(picture[..., None], 3, axis=2) if grey else np.ascontiguousarray(picture[..., :3]))
    return [each for each in found if each.dtype == np.uint8]


def crops(pictures: Sequence[Image]) -> list[Image]:
    """Random square crops of each picture."""
    made: list[Image] = []
    for number, picture in enumerate(pictures):
        rng = default_rng(number)
        for _ in range(CROPS_PER_PICTURE):
            top, left = (int(rng.integers(0, max(1, side - CROP))) for side in picture.shape[:2])
            made.append(np.ascontiguousarray(picture[top : top + CROP, left : left + CROP]))
    return made


def shares(model: Model, images: Sequence[Image]) -> tuple[float, float]:
    """The share of pictures without any label, and of those with a confident land use."""
    withheld = confident = 0
    for image in images:
        result = model(image)
        land_use = result.land_use
        withheld += result.reason is not None
        confident += land_use.label is not None and float(land_use.probabilities.max()) >= CONFIDENT
    return withheld / len(images), confident / len(images)


def abstention(
    bundle: Annotated[str, typer.Argument(help="A bundle, or builtin:NAME.")],
    data_root: Annotated[Path, typer.Argument(help="The folder that holds the data sets and not_land.zip.")],
    per_set: Annotated[int, typer.Option(min=1, help="Validation images of a data set at most.")] = 350,
) -> None:
    """Print the shares for each kind of picture."""
    model = load(bundle)
    if "land_use" not in {head.name for head in model.bundle.spec.heads}:
        raise UsageError(f"{bundle}: has no head 'land_use', whose confidence is counted")
    side = judging_side(model.bundle.spec.input)
    kinds: dict[str, list[Image]] = dict(ordinary(data_root, side, per_set))
    for kind, image in real_not_land(data_root, "val", side):
        kinds.setdefault(kind, []).append(image)
    pictures = everyday()
    kinds |= {"everyday": pictures, f"everyday, {CROP} px crops": crops(pictures)}
    table = Table("pictures", "number", "no label", f"land_use at {CONFIDENT:g} or more", title=bundle)
    for kind, images in kinds.items():
        withheld, confident = shares(model, images)
        table.add_row(kind, str(len(images)), f"{withheld:.1%}", f"{confident:.1%}")
    printer().print(table)


if __name__ == "__main__":
    typer.run(abstention)
