"""Files that a command writes when its work is done."""

from __future__ import annotations

from pathlib import Path

from spatialnet_edge.core.errors import UsageError


def to_be_written(path: Path | None) -> Path | None:
    """Make the folder of a file and find out whether the file can be written, before minutes of work are lost.

    A callback for options of the command line; None, for a file that nobody asked for, stays None.

    Raises:
        UsageError: it cannot be written; nothing is changed.
    """
    if path is None:
        return None
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
    """The same of a bundle, which is a `.snb` file or a directory.

    Raises:
        UsageError: it is neither, or cannot be written.
    """
    if path.suffix not in ("", ".snb"):
        raise UsageError(f"the output is '{path}'; name a file that ends in .snb, or a directory")
    to_be_written(path if path.suffix else path.with_suffix(".new"))  # a directory comes to be beside its place
    return path
