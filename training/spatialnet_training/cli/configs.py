"""Training configurations, by the name of a shipped one or by path."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from spatialnet_edge.core.errors import UsageError
from spatialnet_training.config import TrainConfig, load_config


def read_config(name: str, overrides: tuple[str, ...] = ()) -> TrainConfig:
    """Read a configuration by path or by the name of a shipped one.

    Raises:
        UsageError: neither, or not a valid configuration.
    """
    shipped = Path(str(files("spatialnet_training"))).joinpath("configs")
    path = Path(name) if Path(name).suffix == ".toml" else shipped / f"{name}.toml"
    if not path.is_file():
        raise UsageError(f"no configuration '{name}'; shipped: {', '.join(p.stem for p in sorted(shipped.glob('*.toml')))}")
    try:
        return load_config(path, overrides)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
