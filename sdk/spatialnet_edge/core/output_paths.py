"""Output files of commands, checked before the work begins."""

from __future__ import annotations

from pathlib import Path

from spatialnet_edge.core.errors import UsageError

STANDARD_OUTPUT = Path("-")
"""The name that stands for standard output in options such as `--json`."""


def to_be_written(path: Path | None) -> Path | None:
    """Create the folder of a file and check that the file can be written, before minutes of work are lost.

    A callback for command-line options; None (no file requested) and `-` (standard output) stay as they are.

    Raises:
        UsageError: it cannot be written; nothing is changed.
    """
    if path is None or path == STANDARD_OUTPUT:
        return path
    if path.exists() and not path.is_file() and not path.is_dir():
        return path  # opening a pipe twice would end it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with path.open("ab"):
            pass
        if new:
            path.unlink()
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}; name another file") from error
    return path


def bundle_to_be_written(path: Path) -> Path:
    """The same check for a bundle, which is a `.snb` file or a directory.

    Raises:
        UsageError: it is neither, or cannot be written.
    """
    if path.suffix not in ("", ".snb"):
        raise UsageError(f"the output is '{path}'; name a file that ends in .snb, or a directory")
    to_be_written(path if path.suffix else path.with_suffix(".new"))  # a directory is created next to its final path
    return path
