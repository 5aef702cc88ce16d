"""Train from Python: one function, as the command `spatialnet-edge train`.

from spatialnet_training.api import train

checkpoint = train("images.zip", "runs/mine", epochs=12)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spatialnet_training.cli.train_options import Recipe
from spatialnet_training.data.dataset_options import DEFAULTS, DatasetOptions
from spatialnet_training.loop.run_inputs import load_images
from spatialnet_training.loop.training_run import train as run_training
from spatialnet_training.loop.watcher import Watcher


def train(
    data: str | Path,
    output: str | Path,
    *,
    config: str = "folder",
    start: str | None = None,
    epochs: int | None = None,
    size: int | None = None,
    seed: int | None = None,
    settings: Sequence[str] = (),
    options: DatasetOptions = DEFAULTS,
    watcher: Watcher | None = None,
) -> Path:
    """Train a network on labelled images of your own. Called again with the same `output`, it continues where it stopped.

    Args:
        data: a folder or zip with `<class>/<image>`, or a table (CSV, Parquet, COCO).
        output: a folder for checkpoint, log and card.
        config: a TOML file, or the name of a shipped configuration.
        start: a checkpoint to start from, or the name of a shipped one; `scratch`: random weights; None: as the configuration says.
        epochs: at most so many epochs of fine-tuning.
        size: side of the network's input, in pixels.
        seed: of every random draw.
        settings: overrides of the configuration, each `key=value` in TOML.
        options: how the labels of the images are read.
        watcher: receives the progress; None for no reports.

    Returns:
        The path of `model.safetensors`. `spatialnet_optimize.api.export` takes its folder.

    Raises:
        UsageError: an unknown configuration, checkpoint or setting, or `output` holds another run.
        DataRefused: the images cannot be trained on.
        RunError: the training diverged, or a checkpoint cannot be written.
    """
    recipe = Recipe(config=config, start=start or "", epochs=epochs, size=size, seed=seed, set_=[*settings])
    chosen = recipe.read(own=True)
    images = load_images(chosen, Path(data), Path(), options)
    return run_training(chosen, images, Path(output), f"spatialnet_training.api.train of {Path(data).name}", watcher)
