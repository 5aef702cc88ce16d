"""The shipped samples as two data sets with splits, a run that takes seconds, and a user's own folder."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from spatialnet_training.config import TrainConfig, TrainingStage
from spatialnet_training.data.samples import part_of
from spatialnet_training.data.taxonomy import OBJECTS

torch.set_num_threads(1)  # the same sums in the same order

SAMPLES = Path(__file__).resolve().parents[1] / "optimize" / "spatialnet_optimize" / "samples"
SOURCES = {"eurosat": SAMPLES / "eurosat.zip", "ucmerced": SAMPLES / "ucmerced.zip"}

TINY_RUN = TrainConfig(
    name="tiny run",
    backbone="student-1m",
    data={"eurosat": "eurosat.zip", "ucmerced": "ucmerced.zip"},
    stages=(TrainingStage(size=32, epochs=1), TrainingStage(size=48, epochs=1, cutmix_share=0.5)),
    epoch_images=48,
    batch=16,
)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files in four train, the others validate."""
    root = tmp_path_factory.mktemp("data")
    for name, archive in SOURCES.items():
        with zipfile.ZipFile(archive) as source, zipfile.ZipFile(root / f"{name}.zip", "w") as target:
            files = [entry for entry in source.namelist() if entry.endswith(".jpg")]
            for entry in source.namelist():
                # the samples are held-out images by their path; new paths give both held-out and other images
                renamed = entry if entry.endswith(".csv") else entry.replace(".jpg", "_.jpg")
                content = source.read(entry)
                if entry == "objects.csv":
                    content = content.replace(b".jpg", b"_.jpg")
                target.writestr(renamed, content)
            rows = [f"{f.replace('.jpg', '_.jpg')},{'val' if i % 4 == 0 else 'train'}" for i, f in enumerate(files)]
            target.writestr("splits.csv", "path,split\n" + "\n".join(rows) + "\n")
    return root


def write_set(folder: Path, name: str, classes: Mapping[str, int], bands: int, side: int = 24) -> Path:
    """A small copy of a set's layout: class k is brighter in every band; 20 scenes of two tiles each."""
    chance = np.random.default_rng(0)
    rows: list[tuple[str, str]] = []
    for kind, level in classes.items():
        (folder / name / "images" / kind).mkdir(parents=True)
        for scene in range(20):
            for tile in range(2):
                path = f"images/{kind}/{name}{kind}{scene}_0_{16 * tile}.tif"
                image = (level + chance.integers(-100, 100, (side, side, bands))).astype(np.int16)
                tifffile.imwrite(folder / name / path, image, photometric="minisblack", planarconfig="contig")
                rows.append((path, "train" if scene < 18 else "val"))
    with (folder / name / "splits.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "split"), *rows])
    return folder / name


def own_images(tmp_path: Path, broken: bool = True) -> Path:
    """Two classes of the shipped samples in a typical user layout, three copies under other names."""
    with zipfile.ZipFile(SAMPLES / "eurosat.zip") as archive:
        for kind in ("Forest", "SeaLake"):
            (tmp_path / "mine" / kind).mkdir(parents=True)
            for copy in range(3):
                for name in [entry for entry in archive.namelist() if f"/{kind}/" in entry]:
                    (tmp_path / "mine" / kind / f"{copy}_{Path(name).name}").write_bytes(archive.read(name))
    if broken:
        (tmp_path / "mine" / "Forest" / "0_broken.jpg").write_bytes(b"no image")
    return tmp_path / "mine"


PUBLISHED_CLASSES = {
    "eurosat_rgb.zip": ("Forest", "SeaLake", "Residential"),
    "ucmerced.zip": ("forest", "river", "buildings"),
    "rsscn7.zip": ("forest", "river_lake", "parking_lot"),
    "aid_multilabel.zip": ("Forest", "River", "Parking"),
    "nwpu_resisc45.zip": ("forest", "lake", "cloud"),
    "not_land.zip": ("cloud", "space"),
}
"""Some classes of each published file; not_land.zip has pictures without land."""


@pytest.fixture(scope="session")
def published_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All published files, with a few small drawn images of each class: 6 that train, 2 that are held out, 1 that validates."""
    root = tmp_path_factory.mktemp("published")
    for file, classes in PUBLISHED_CLASSES.items():
        paths: dict[str, str] = {}
        with zipfile.ZipFile(root / file, "w") as archive:
            for kind_index, kind in enumerate(classes):
                for path, split in drawn_paths(kind):
                    paths[path] = split
                    archive.writestr(path, drawn(kind_index, len(paths)))
            archive.writestr("splits.csv", "path,split\n" + "\n".join(f"{path},{split}" for path, split in paths.items()))
            if file in ("ucmerced.zip", "aid_multilabel.zip"):
                rows = [f"{path}," + ",".join(str(int(index % 3 == 0)) for index in range(len(OBJECTS))) for path in paths]
                archive.writestr("objects.csv", f"path,{','.join(OBJECTS)}\n" + "\n".join(rows))
    return root


def drawn_paths(kind: str) -> list[tuple[str, str]]:
    """Paths of a class with their splits; which training images are held out follows from the path."""
    wanted, made, number = {"train": 6, "holdout": 2}, [(f"images/{kind}/val.jpg", "val")], 0
    while any(wanted.values()):
        path, number = f"images/{kind}/{number}.jpg", number + 1
        part = part_of(path, "train")
        if wanted[part]:
            wanted[part] -= 1
            made.append((path, "train"))
    return made


def drawn(kind: int, seed: int) -> bytes:
    """A JPEG of 32 pixels: stripes whose width and colour tell the kind."""
    rng = np.random.default_rng([kind, seed])
    stripes = (np.arange(32) // (2 + 3 * kind) % 2)[None, :, None] * np.roll([120, 60, 20], kind)
    pixels = np.clip(stripes + rng.integers(30, 90, (32, 32, 3)), 0, 255).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "JPEG", quality=92)
    return target.getvalue()
