"""Write a bundle to disk atomically. `reader.py` documents the format."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from spatialnet_edge.bundle.manifest import FileRecord, Manifest, encode_manifest
from spatialnet_edge.bundle.reader import MANIFEST, Bundle, open_bundle
from spatialnet_edge.bundle.trust import Trust
from spatialnet_edge.core.atomic_io import replaced, sync_folder
from spatialnet_edge.core.errors import BundleError


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Write a bundle atomically, then open it.

    A `.snb` is replaced by one atomic rename. A directory needs two renames; a power cut between them leaves the old one next
    to the path, under a name that begins with a dot.

    Args:
        path: a `.snb` file, or a directory to create.
        manifest: its `files` must equal `file_records(files)`.
        files: path in the bundle to content.
    """
    write_raw(path, {MANIFEST: encode_manifest(manifest), **files})
    return open_bundle(path, Trust(allow_unsigned=True))


def write_raw(path: Path, files: Mapping[str, bytes]) -> None:
    """Write files to `path` as `write_bundle` does, without validation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".snb":
        _replace_file(path, files)
    else:
        _replace_directory(path, files)


def file_records(files: Mapping[str, bytes]) -> tuple[FileRecord, ...]:
    """Size and sha256 of each file, ordered by path."""
    return tuple(
        FileRecord(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for path, content in sorted(files.items())
    )


def _replace_file(path: Path, files: Mapping[str, bytes]) -> None:
    with replaced(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)  # a fixed date: the same content gives the same bytes
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, content)


def _replace_directory(path: Path, files: Mapping[str, bytes]) -> None:
    if path.exists() and not (path / MANIFEST).is_file():
        raise BundleError(f"{path}: exists and is not a bundle; choose another output or remove it")
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        for name, content in files.items():
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for folder in (temporary, *(each for each in temporary.rglob("*") if each.is_dir())):
            sync_folder(folder)
        os.chmod(temporary, 0o755)
        if path.exists():
            retired = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            os.replace(path, retired / "bundle")
            os.replace(temporary, path)
            shutil.rmtree(retired)
        else:
            os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
