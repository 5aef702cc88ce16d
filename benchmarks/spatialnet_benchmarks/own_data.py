"""How well and how fast `train` learns a user's own folder: accuracy on `val`, and core seconds of the whole command.

    python -m spatialnet_benchmarks.own_data few DATA            RSSCN7, 30 images a class, defaults
    python -m spatialnet_benchmarks.own_data fine-tuned DATA     the same with --fine-tune always
    python -m spatialnet_benchmarks.own_data unseen DATA --lite0 WEIGHTS
                                                                 ten classes of RESISC45 that no shipped model was taught
    python -m spatialnet_benchmarks.own_data many DATA           EuroSAT, 300 images a class, against a network from scratch
    python -m spatialnet_benchmarks.own_data first-model DATA    210 images: train, build and run, in wall-clock seconds

DATA is the folder of the public data sets' zips. Training images are drawn from the zip's `train` by the seed; all of its `val`
only judges. Core seconds are user and system time of the command and its children.
"""

from __future__ import annotations

import csv
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer
from numpy.random import default_rng

UNSEEN = (
    "basketball_court", "island", "palace", "roundabout", "sea_ice", "ship", "snowberg", "terrace", "thermal_power_station",
    "wetland",
)  # fmt: skip
"""Classes of RESISC45 that are no class of the data sets which the shipped models were taught to tell apart."""

Seeds = Annotated[int, typer.Option(min=1, help="How many draws of the training images.")]
Weights = Annotated[Path, typer.Option(help="ImageNet weights of EfficientNet-Lite0, as a state dict of torch.", exists=True)]
Root = Annotated[Path, typer.Argument(help="Folder of the public data sets' zips.", exists=True)]

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@dataclass(frozen=True, slots=True)
class Run:
    """One training.

    Attributes:
        accuracy: on `val`, 0 to 1.
        core_seconds: of the command `train`.
        epoch: that was kept; 0 for the linear head.
    """

    accuracy: float
    core_seconds: float
    epoch: int


def lay_out(archive: Path, folder: Path, per_class: int, seed: int, classes: Sequence[str] = ()) -> None:
    """Write `train/<class>/` with so many images of each class, and `val/<class>/` with all validation images.

    Args:
        classes: empty for all.
    """
    with zipfile.ZipFile(archive) as files:
        rows = list(csv.DictReader(io.StringIO(files.read("splits.csv").decode())))
        by_part: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            kind = PurePosixPath(row["path"]).parts[1]
            if not classes or kind in classes:
                by_part.setdefault((row["split"], kind), []).append(row["path"])
        for (split, kind), names in sorted(by_part.items()):
            names.sort()
            if split == "train":
                names = [names[index] for index in default_rng(seed).permutation(len(names))[:per_class]]
            for name in names:
                target = folder / split / kind / PurePosixPath(name).name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(files.read(name))


def train(data: Path, out: Path, *options: str) -> Run:
    """Train on a folder in a process of its own."""
    before = cpu_seconds()
    command("train", "--data", str(data), "--output", str(out), *options)
    spent = cpu_seconds() - before
    with (out / "log.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    kept = min(rows, key=lambda row: float(row["holdout_loss"]))
    return Run(float(kept["val/land_use"]), spent, int(float(kept["epoch"])))


def command(*arguments: str) -> None:
    """Run one of our commands; its output is shown where it fails."""
    done = subprocess.run([sys.executable, "-m", "spatialnet_edge", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"spatialnet-edge {' '.join(arguments)}: {done.stdout}{done.stderr}")


def cpu_seconds() -> float:
    """User and system time of the finished children of this process."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def draws(archive: Path, seeds: int, per_class: int, classes: Sequence[str], *options: str) -> list[Run]:
    """Train once for each draw of the training images, and print each result."""
    runs: list[Run] = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as scratch:
            data, out = Path(scratch) / "data", Path(scratch) / "run"
            lay_out(archive, data, per_class, seed, classes)
            runs.append(train(data, out, *options))
        print(f"draw {seed}: {runs[-1].accuracy:.1%} on val, {runs[-1].core_seconds:.0f} core seconds, epoch {runs[-1].epoch}")
    print(f"mean: {mean(runs):.1%}, {sum(run.core_seconds for run in runs) / len(runs):.0f} core seconds")
    return runs


def mean(runs: Sequence[Run]) -> float:
    """Accuracy over several draws, 0 to 1."""
    return sum(run.accuracy for run in runs) / len(runs)


@app.command()
def few(root: Root, seeds: Seeds = 1) -> None:
    """RSSCN7, 30 images a class, default settings."""
    draws(root / "rsscn7.zip", seeds, 30, ())


@app.command("fine-tuned")
def fine_tuned(root: Root, seeds: Seeds = 1) -> None:
    """RSSCN7, 30 images a class, with fine-tuning."""
    draws(root / "rsscn7.zip", seeds, 30, (), "--fine-tune", "always")


@app.command()
def unseen(root: Root, lite0: Weights, seeds: Seeds = 1) -> None:
    """Ten classes of RESISC45, 30 images a class: defaults, and EfficientNet-Lite0 with ImageNet weights at 224 pixels, whose
    features get a logistic regression by the same program."""
    archive = root / "nwpu_resisc45.zip"
    print("spatialnet-m:")
    own = draws(archive, seeds, 30, UNSEEN)
    print("EfficientNet-Lite0, ImageNet, 224 pixels, logistic regression:")
    peer = draws(
        archive, seeds, 30, UNSEEN, "--backbone", "timm:tf_efficientnet_lite0", "--set", f"weights={lite0}", "--size", "224",
        "--fine-tune", "never",
    )  # fmt: skip
    print(f"ratio of the means: {mean(own) / mean(peer):.3f}")


@app.command()
def many(root: Root, epochs: Annotated[int, typer.Option(min=1, help="Of the network from scratch.")] = 24) -> None:
    """EuroSAT, 300 images a class: fine-tuning, and MobileNetV3-Small (1.5 M parameters) from scratch for as long.

    EuroSAT is one of the data sets that the start was trained on.
    """
    archive = root / "eurosat_rgb.zip"
    print("spatialnet-m, all weights fine-tuned:")
    draws(archive, 1, 300, (), "--fine-tune", "always")
    print(f"MobileNetV3-Small from scratch, {epochs} epochs; compare its core seconds and give other --epochs:")
    draws(
        archive, 1, 300, (), "--backbone", "timm:mobilenetv3_small_100", "--start", "scratch", "--set", "linear_head=false",
        "--fine-tune", "always", "--set", "layer_decay=1.0", "--lr", "1.5e-3", "--epochs", str(epochs), "--set", "patience=0",
    )  # fmt: skip


@app.command("first-model")
def first_model(root: Root) -> None:
    """210 images: train, build and run one after the other, in wall-clock seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        data, out, bundle = Path(scratch) / "data", Path(scratch) / "run", Path(scratch) / "mine.snb"
        lay_out(root / "rsscn7.zip", data, 30, 0)
        begun = time.monotonic()
        command("train", "--data", str(data), "--output", str(out))
        trained = time.monotonic()
        command("build", str(out), "--labelled", str(out / "dataset.json"), "-o", str(bundle))
        built = time.monotonic()
        command("run", str(bundle), str(data / "val"), "--json", os.devnull, "--allow-unsigned")
        ended = time.monotonic()
        print(f"train {trained - begun:.0f} s, build {built - trained:.0f} s, run {ended - built:.0f} s")
        print(f"together {ended - begun:.0f} s of wall-clock time, {cpu_seconds():.0f} core seconds")


if __name__ == "__main__":
    app()
