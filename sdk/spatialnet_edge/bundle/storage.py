"""Storage of a bundle: a directory or an uncompressed zip. Both are treated as hostile input."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from spatialnet_edge.core.errors import BundleError

MAX_FILES = 1000
ZIP_MAGIC = b"PK\x03\x04"


class Store(Protocol):
    """Storage of a bundle's files."""

    def sizes(self) -> Mapping[str, int]:
        """Path and size in bytes of every file. Links and devices are refused."""
        ...

    def read(self, path: str, limit: int) -> bytes:
        """At most `limit + 1` bytes of one file."""
        ...


@dataclass(frozen=True, slots=True)
class DirectoryStore:
    root: Path

    def sizes(self) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for folder, folders, files in os.walk(self.root, followlinks=False):
            for name in (*folders, *files):
                path = Path(folder, name)
                relative = path.relative_to(self.root).as_posix()
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    found[relative] = status.st_size
                elif not stat.S_ISDIR(status.st_mode):
                    raise BundleError(f"{self.root}: '{relative}' is a link or a device; a bundle holds plain files only")
                if len(found) > MAX_FILES:
                    raise BundleError(f"{self.root}: more than {MAX_FILES} files; this is not a bundle")
        return found

    def read(self, path: str, limit: int) -> bytes:
        try:
            descriptor = os.open(self.root / path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            with open(descriptor, "rb") as file:
                return file.read(limit + 1)
        except OSError as error:
            raise BundleError(f"{self.root}: '{path}' cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class ZipStore:
    archive: Path

    def sizes(self) -> Mapping[str, int]:
        found: dict[str, int] = {}
        try:
            with zipfile.ZipFile(self.archive) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            size = self.archive.stat().st_size
            raise BundleError(
                f"{self.archive}: not a readable bundle ({error}); it has {size} bytes and may be truncated; copy it again"
            ) from error
        if len(entries) > MAX_FILES:
            raise BundleError(f"{self.archive}: {len(entries)} entries; at most {MAX_FILES} are allowed")
        for entry in entries:
            name = entry.filename
            if name.startswith(("/", "\\")) or ".." in name.split("/") or "\\" in name or ":" in name:
                raise BundleError(f"{self.archive}: unsafe entry name '{name}'")
            if name in found:
                raise BundleError(f"{self.archive}: '{name}' occurs twice")
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG) or name.endswith("/"):
                raise BundleError(f"{self.archive}: '{name}' is not a plain file")
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise BundleError(f"{self.archive}: '{name}' is compressed; a bundle is an uncompressed zip")
            if entry.flag_bits & 1:
                raise BundleError(f"{self.archive}: '{name}' is encrypted")
            found[name] = entry.file_size
        return found

    def read(self, path: str, limit: int) -> bytes:
        try:
            with zipfile.ZipFile(self.archive) as archive, archive.open(path) as file:
                return file.read(limit + 1)
        except (zipfile.BadZipFile, OSError, EOFError, KeyError, ValueError, NotImplementedError) as error:
            raise BundleError(f"{self.archive}: '{path}' cannot be read: {error}") from error
