"""File tree: the files of a folder or a zip, by relative path."""

from __future__ import annotations

import csv
import io
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.sources.registry import hidden

JUNK = frozenset(
    {
        "__pycache__",
        "@eadir",
        "#recycle",
        "$recycle.bin",
        "lost+found",
        "system volume information",
        "thumbs.db",
        "desktop.ini",
    }
)
"""Metadata files of desktops, network drives and notebooks, besides hidden files."""


@dataclass(frozen=True, slots=True)
class Unused:
    """An unused file, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of a zip or a directory.

    Attributes:
        path: of the zip or the directory.
        top: the folder inside that names are relative to, with a final `/`; empty: the zip or directory itself.
    """

    path: Path
    top: str = ""

    def names(self) -> list[str]:
        """Every file, sorted, without hidden files and metadata files of desktops.

        Raises:
            DataRefused: no such path, or not a zip.
        """
        return self.listed()[0]

    def listed(self) -> tuple[list[str], list[Unused]]:
        """Every file, sorted, and the unused ones: hidden files, broken links, and files that are not regular.

        Raises:
            DataRefused: no such path, or not a zip.
        """
        found, unused = self._all()
        names: list[str] = []
        for name in sorted(found):
            if left_behind(name):
                unused.append(Unused(name, "hidden, or a metadata file of a desktop"))
            else:
                names.append(name)
        return names, unused

    def _all(self) -> tuple[list[str], list[Unused]]:
        found, unused = walk(self.path) if self.path.is_dir() else (self._members(), [])
        length = len(self.top)
        below = [name[length:] for name in found if name.startswith(self.top)]
        return below, [Unused(each.name[length:], each.reason) for each in unused if each.name.startswith(self.top)]

    def _members(self) -> list[str]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                return [name for name in archive.namelist() if not name.endswith("/")]
        except (OSError, zipfile.BadZipFile) as error:
            raise DataRefused(
                f"{self.path}: neither a folder nor a readable zip ({error}); "
                f"expected <class>/<image> below a folder or in a zip"
            ) from error

    def read(self, names: Sequence[str]) -> Iterator[bytes]:
        """The content of each file, in the given order; empty if it cannot be read."""
        if self.path.is_dir():
            yield from (content(lambda name=name: (self.path / self.top / name).read_bytes()) for name in names)
            return
        with zipfile.ZipFile(self.path) as archive:
            yield from (content(lambda name=name: archive.read(self.top + name)) for name in names)

    @contextmanager
    def opened(self) -> Iterator[Callable[[str], IO[bytes]]]:
        """A function that opens one file by its name, for reading only its beginning."""
        if self.path.is_dir():
            yield lambda name: (self.path / self.top / name).open("rb")
            return
        with zipfile.ZipFile(self.path) as archive:
            yield lambda name: archive.open(self.top + name)

    def table(self, name: str, columns: Sequence[str], names: Sequence[str]) -> list[dict[str, str]]:
        """The rows of a CSV file that has a column `path` and these.

        Args:
            names: from `names`; the tree is walked again only for files that are not among them.

        Raises:
            DataRefused: not such a table, or a listed file does not exist.
        """
        try:
            rows = rows_of_csv(next(self.read([name])).decode("utf-8-sig"))
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataRefused(f"{self.path}: {name} cannot be read as a table in UTF-8: {error}") from error
        found = list(rows[0]) if rows else []
        if absent := [column for column in ("path", *columns) if column not in found]:
            raise DataRefused(
                f"{self.path}: {name} has no column '{absent[0]}'; it has {', '.join(map(str, found)) or 'no rows'}"
            )
        listed = set(names)
        unlisted = [row["path"] for row in rows if row["path"] not in listed]
        there = set(self._all()[0]) if unlisted else listed
        if missing := [path for path in unlisted if path not in there]:
            raise DataRefused(f"{self.path}: {name} lists {len(missing)} files that do not exist, the first {missing[0]}")
        return rows


def rows_of_csv(text: str) -> list[dict[str, str]]:
    """The rows of a table with columns separated by commas, semicolons or tabs; cells are stripped.

    Raises:
        csv.Error: not a table.
    """
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    return [{name.strip(): (cell or "").strip() for name, cell in row.items() if name} for row in reader]


def left_behind(name: str) -> bool:
    """Whether any part of a path is hidden or metadata of a desktop or notebook."""
    return any(hidden(part) or part.casefold() in JUNK for part in PurePosixPath(name).parts)


def walk(folder: Path) -> tuple[list[str], list[Unused]]:
    """Every regular file below a folder, following links, and the unused ones: broken or circular links, devices."""
    found: list[str] = []
    unused: list[Unused] = []

    def descend(directory: str, above: frozenset[tuple[int, int]]) -> None:
        for entry in os.scandir(directory):
            name = Path(entry.path).relative_to(folder).as_posix()
            try:
                status = entry.stat()
            except OSError:
                unused.append(Unused(name, "a broken link" if entry.is_symlink() else "cannot be read"))
                continue
            if stat.S_ISDIR(status.st_mode):
                identity = (status.st_dev, status.st_ino)
                if identity in above:
                    unused.append(Unused(name, "a link to a folder above itself"))
                else:
                    descend_safely(entry.path, name, above | {identity})
            elif stat.S_ISREG(status.st_mode):
                found.append(name)
            else:
                unused.append(Unused(name, "not a regular file"))

    def descend_safely(directory: str, name: str, above: frozenset[tuple[int, int]]) -> None:
        try:
            descend(directory, above)
        except OSError as error:
            unused.append(Unused(name, f"a folder that cannot be read ({error.strerror})"))

    status = folder.stat()
    descend(str(folder), frozenset({(status.st_dev, status.st_ino)}))
    return found, unused


def content(read: Callable[[], bytes]) -> bytes:
    """The content of a file; empty after a read error, a wrong checksum, or for unsupported compression or encryption."""
    try:
        return read()
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        return b""
