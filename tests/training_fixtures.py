"""The shipped samples as two data sets with splits, a run that takes seconds, and a user's own folder."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from spatialnet_training.config import TrainConfig, TrainingStage

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
