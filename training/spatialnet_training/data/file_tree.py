"""The files of a folder or a zip, by their path relative to its top."""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.sources.registry import hidden


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of a zip or a directory, by their path relative to its top; those that are hidden are not among them."""

    path: Path

    def names(self) -> list[str]:
        """Every file, sorted.

        Raises:
            DataRefused: no such path, or not a zip.
        """
        return sorted(name for name in self._all() if not any(map(hidden, PurePosixPath(name).parts)))

    def _all(self) -> list[str]:
        if self.path.is_dir():
            return [p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file()]
        try:
            with zipfile.ZipFile(self.path) as archive:
                return [name for name in archive.namelist() if not name.endswith("/")]
        except (OSError, zipfile.BadZipFile) as error:
            raise DataRefused(
                f"{self.path}: no such folder, and not a zip that can be read ({error}); "
                f"expected <class>/<image> below a folder or in a zip"
            ) from error

    def read(self, names: Sequence[str]) -> Iterator[bytes]:
        """The content of each file, in the order asked for; empty where it cannot be read."""
        if self.path.is_dir():
            yield from (content(lambda name=name: (self.path / name).read_bytes()) for name in names)
            return
        with zipfile.ZipFile(self.path) as archive:
            yield from (content(lambda name=name: archive.read(name)) for name in names)

    def table(self, name: str, columns: Sequence[str], names: Sequence[str]) -> list[dict[str, str]]:
        """The rows of a CSV file that has a column `path` and these.

        Args:
            names: as `names` gave them; the tree is only walked again for what is not among them.

        Raises:
            DataRefused: it is no such table, or names a file that is not there.
        """
        try:
            rows = list(csv.DictReader(io.StringIO(next(self.read([name])).decode("utf-8-sig"))))
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataRefused(f"{self.path}: {name} cannot be read as a table in UTF-8: {error}") from error
        found = list(rows[0]) if rows else []
        if absent := [column for column in ("path", *columns) if column not in found]:
            raise DataRefused(
                f"{self.path}: {name} has no column '{absent[0]}'; it has {', '.join(map(str, found)) or 'no rows'}"
            )
        listed = set(names)
        unlisted = [row["path"] for row in rows if row["path"] not in listed]
        there = set(self._all()) if unlisted else listed
        if missing := [path for path in unlisted if path not in there]:
            raise DataRefused(f"{self.path}: {name} names {len(missing)} files that are not there, the first {missing[0]}")
        return rows


def content(read: Callable[[], bytes]) -> bytes:
    """What a file holds; nothing when its medium, its zip's checksum, its compression or a password stands before it."""
    try:
        return read()
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        return b""
