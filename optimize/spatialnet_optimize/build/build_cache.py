"""Build cache: a build with the same model, options, images, libraries and computer is reused.

The cache is a folder of bundles, named by a hash of all inputs of a build.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from spatialnet_edge import __version__
from spatialnet_edge.bundle.reader import Bundle, open_bundle
from spatialnet_edge.bundle.trust import Trust
from spatialnet_edge.core.atomic_io import replaced
from spatialnet_edge.core.errors import BundleError
from spatialnet_edge.core.hardware_info import machine
from spatialnet_optimize.build.build import Job, Step, build
from spatialnet_optimize.cache_dir import cache_root
from spatialnet_optimize.compilers.plan_builder import Progress, silent
from spatialnet_optimize.shipped_samples import shipped_samples
from spatialnet_optimize.targets.catalogue import find_target
from spatialnet_training.data.dataset_record import RECORD, SPLITS_FILE, read_record
from spatialnet_training.data.table_formats import is_table, rows_of

LIBRARIES = ("numpy", "onnx", "onnxruntime", "ml-dtypes", "tensorrt-rtx-cu13", "tensorrt", "nvidia-modelopt")
MOST = 16
"""Number of cached bundles; the least recently used one is deleted first."""


def cache_folder() -> Path:
    return cache_root() / "builds"


def key(job: Job) -> str:
    """Hash of all inputs of a build."""
    name, target = find_target(job.target, job.targets, job.precision, job.dla)
    parts = {
        "tool": __version__,
        "model": job.model.sha256,
        "target": [name, msgspec.to_builtins(target)],
        "options": [
            job.budget,
            job.heads,
            job.precision,
            repr(job.plan),
            job.search,
            repr(job.qat),
            job.output.suffix == ".snb",
        ],
        "images": [[content_hash(path) for path in job.labelled or shipped_samples()], content_hash(job.calibration)],
        "libraries": {library: installed(library) for library in LIBRARIES},
        "machine": machine(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def content_hash(path: Path | None) -> str:
    """Hash of a file, of a folder with the names of its files, or of a table and its files."""
    if path is None or not path.exists():
        return ""
    digest = hashlib.sha256()
    for file in files_below(path):
        digest.update(f"{os.path.relpath(file, path)}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def files_below(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(each for each in path.rglob("*") if each.is_file())
        return
    yield path
    if is_table(path):
        yield from (path.parent / row["path"] for row in rows_of(path))
    elif path.name == RECORD:
        yield path.with_name(SPLITS_FILE)
        yield from files_below(Path(read_record(path).path))


def installed(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


Make = Callable[[Job, Step, Progress], tuple[Bundle, object]]
OURS = Trust(allow_unsigned=True)
"""Trust for own builds, which cannot be signed yet."""


def remembered(job: Job, step: Step, progress: Progress = silent, make: Make = build) -> Bundle:
    """The bundle of this job: from the cache if it is there and valid, otherwise built and cached.

    Only `.snb` files are cached. Raises as `build`.
    """
    kept = cache_folder() / f"{key(job)}.snb"
    if kept.exists() and job.output.suffix == ".snb":
        try:
            open_bundle(kept, OURS)
        except BundleError:
            kept.unlink()
        else:
            step("the same build is in the cache and is reused (--no-cache builds again)")
            with suppress(OSError):  # a read-only cache
                os.utime(kept)
            copy(kept, job.output)
            return open_bundle(job.output, OURS)
    bundle, _ = make(job, step, progress)
    if job.output.suffix == ".snb":
        try:
            keep(job.output, kept)
        except OSError as error:
            step(f"warning: the build was not cached: {error}")
    return bundle


def keep(bundle: Path, kept: Path) -> None:
    """Add a bundle to the cache and delete the oldest one."""
    copy(bundle, kept)
    for old in sorted(kept.parent.glob("*.snb"), key=lambda each: each.stat().st_mtime)[:-MOST]:
        old.unlink()


def copy(source: Path, target: Path) -> None:
    """Copy a file atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as content, replaced(target, sync=False) as file:
        shutil.copyfileobj(content, file)
