"""Read a bundle: a directory, or the same files in one uncompressed zip (`.snb`).

Each step is checked before the next: size limit → signature → exact file set → hash of the buffer that is used → parse →
structure of each graph (`onnx_structure.py`) → golden test. No pickle, no external data, no code.

The signature is in `manifest.sig`; `trust.py` has the trusted keys.
"""

from __future__ import annotations

import hashlib
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.bundle.manifest import MAX_MANIFEST_BYTES, FileRecord, Manifest, decode_manifest
from spatialnet_edge.bundle.onnx_structure import refuse_unsafe_graph
from spatialnet_edge.bundle.storage import ZIP_MAGIC, DirectoryStore, Store, ZipStore
from spatialnet_edge.bundle.strict_json import strict_json
from spatialnet_edge.bundle.trust import MAX_SIGNATURE_BYTES, Trust, trust_here
from spatialnet_edge.core.errors import BundleError, first_line
from spatialnet_edge.core.pixels import decode_png
from spatialnet_edge.core.spec import ModelSpec, Regression

MANIFEST, SIGNATURE, MODEL = "manifest.json", "manifest.sig", "model.onnx"
MAX_BUNDLE_BYTES = 2 << 30
BUILTIN_PREFIX = "builtin:"
BUILTIN = {"spatialnet-s": "student.snb", "spatialnet-m": "student-160.snb", "spatialnet-ms": "spatialnet-ms.snb"}
"""Names of the shipped models, and their files."""
ALIASES = {"student": "spatialnet-s", "student-160": "spatialnet-m"}
"""Former names of the shipped models, accepted in this release."""
SHORT_HASH_DIGITS = 16

PICKLE_MAGIC = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
LEAST_SPREAD = 1e-4
"""By which the golden answers of a quantity must differ, as a share of its range. The golden test compares shares of the range."""
ROUNDING = 1e-3
"""Tolerance for golden outputs outside the valid range."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """An open bundle: the manifest was read, and all files have the recorded size and hash.

    Attributes:
        path: of the file or directory.
        manifest: see `manifest.py`.
        sha256: of the raw manifest, which lists every other hash. It identifies the bundle.
        signature: `signed by KEY`, `shipped with this version`, `unsigned`, or `unchecked` (signed by an unknown key).
    """

    path: Path
    store: Store
    manifest: Manifest
    sha256: str
    signature: str

    def __repr__(self) -> str:
        return f"<Bundle {self.path}: {self.spec.name}, serial {self.manifest.serial}, {self.short_hash}, {self.signature}>"

    @property
    def spec(self) -> ModelSpec:
        return self.manifest.spec

    @property
    def short_hash(self) -> str:
        """The first 16 hexadecimal digits of `sha256`, used in results, records and events."""
        return self.sha256[:SHORT_HASH_DIGITS]

    def read(self, path: str) -> bytes:
        """Read a file. The hash is verified on the bytes that are returned.

        Raises:
            BundleError: the file is not listed, or its size or hash differs.
        """
        record = next((record for record in self.manifest.files if record.path == path), None)
        if record is None:
            raise BundleError(f"{self.path}: there is no '{path}' in this bundle")
        content = self.store.read(path, record.size)
        _check(self.path, record, content)
        if path in self.manifest.graphs:
            try:
                refuse_unsafe_graph(content)
            except ValueError as error:
                raise BundleError(f"{self.path}: '{path}' {error}") from error
        return content

    def golden(self) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.float32]]]:
        """The golden frames, uint8 `[N, H, W, bands]`, and the expected probabilities per output, float32 `[N, width]`.

        Raises:
            BundleError: a frame is not a PNG of the model's size, or an expected output is not valid.
        """
        return self._golden_frames(), self._golden_answers()

    def _golden_frames(self) -> NDArray[np.uint8]:
        spec = self.spec
        frames: list[NDArray[np.uint8]] = []
        for path in self.manifest.golden.frames:
            try:
                frames.append(decode_png(self.read(path), spec.input.channels))
            except ValueError as error:
                raise BundleError(f"{self.path}: golden frame '{path}' is {error}") from error
            if frames[-1].shape != spec.input.shape:
                raise BundleError(f"{self.path}: golden frame '{path}' is {frames[-1].shape}; expected {spec.input.shape}")
        return np.stack(frames)

    def _golden_answers(self) -> dict[str, NDArray[np.float32]]:
        count = len(self.manifest.golden.frames)
        try:
            table = strict_json(self.read(self.manifest.golden.expected))
            expected = {head.name: np.asarray(table[head.name], np.float32) for head in self.spec.outputs}
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise BundleError(f"{self.path}: the golden outputs cannot be read: {first_line(error)}") from error
        for head in self.spec.outputs:
            found = expected[head.name]
            if found.shape != (count, head.width):
                raise BundleError(
                    f"{self.path}: golden outputs of '{head.name}' have shape {found.shape}; expected {(count, head.width)}"
                )
            low, high = (head.low, head.high) if isinstance(head, Regression) else (0.0, 1.0)
            spread = float(found.max() - found.min())
            if not (found.min() >= low - ROUNDING and found.max() <= high + ROUNDING):  # this form also refuses NaN
                raise BundleError(
                    f"{self.path}: golden outputs of '{head.name}' range from {found.min()} to {found.max()}; "
                    f"expected {low} to {high}"
                )
            if isinstance(head, Regression) and spread < LEAST_SPREAD * (high - low):
                raise BundleError(
                    f"{self.path}: golden answers of '{head.name}' differ by {spread:g} in a range from {low:g} to {high:g}, so "
                    f"that the golden test would pass any engine; build the model with a range that fits its answers"
                )
        return expected


def locate(name: str | Path) -> Path:
    """The path of a bundle. `builtin:spatialnet-s` and `builtin:spatialnet-m` are shipped models.

    Raises:
        BundleError: no such file or directory.
    """
    text = str(name)
    if text.startswith(BUILTIN_PREFIX):
        model = text.removeprefix(BUILTIN_PREFIX)
        file = BUILTIN.get(ALIASES.get(model, model))
        if file is None:  # a path after the prefix must not be trusted like a shipped model
            names = ", ".join(BUILTIN_PREFIX + each for each in BUILTIN)
            raise BundleError(f"no model '{text}'; shipped with this version: {names}")
        return Path(__file__).parents[1] / "models" / file
    path = Path(name)
    if not path.exists():
        raise BundleError(
            f"{path}: no such bundle; give a .snb file or a bundle directory, make one with 'spatialnet-edge build', "
            f"or use builtin:spatialnet-s"
        )
    return path


def open_bundle(name: str | Path, trust: Trust | None = None) -> Bundle:
    """Open and verify a bundle. Only the manifest is parsed.

    Args:
        name: path of a `.snb` file or a bundle directory, or `builtin:spatialnet-s`, which needs no signature.
        trust: the trusted keys; None: see `trust_here`.

    Raises:
        BundleError: the first check that fails.
    """
    path = locate(name)
    store = _store(path)
    sizes = store.sizes()
    if MANIFEST not in sizes:
        if any(
            name.endswith((".safetensors", "data.pkl")) for name in sizes
        ):  # the current checkpoint name, and the former one
            build = f"spatialnet-edge build {shlex.quote(str(path))} -o model.snb"
            raise BundleError(f"{path}: a training checkpoint; build it first: {build}")
        raise BundleError(f"{path}: no {MANIFEST} inside; this directory is not a spatialnet-edge bundle")
    total = sum(sizes.values())
    if total > MAX_BUNDLE_BYTES:
        raise BundleError(f"{path}: holds {total} bytes; at most {MAX_BUNDLE_BYTES} are allowed")
    raw = store.read(MANIFEST, MAX_MANIFEST_BYTES)
    if str(name).startswith(BUILTIN_PREFIX):
        signature = "shipped with this version"
    else:
        sealed = store.read(SIGNATURE, MAX_SIGNATURE_BYTES) if SIGNATURE in sizes else None
        signature = (trust or trust_here()).check(str(path), raw, sealed)
    manifest = decode_manifest(raw, str(path))
    listed = {record.path: record.size for record in manifest.files}
    present = {name: size for name, size in sizes.items() if name not in (MANIFEST, SIGNATURE)}
    if extra := sorted(present.keys() - listed.keys()):
        raise BundleError(f"{path}: '{extra[0]}' is not listed in the manifest; remove it or rebuild the bundle")
    if missing := sorted(listed.keys() - present.keys()):
        raise BundleError(f"{path}: '{missing[0]}' is listed in the manifest but missing; copy the bundle again")
    bundle = Bundle(path, store, manifest, hashlib.sha256(raw).hexdigest(), signature)
    for record in manifest.files:
        bundle.read(record.path)
    return bundle


def contents(bundle: Bundle) -> dict[str, bytes]:
    """All files of a bundle, hashed again: the manifest, its signature if there is one, and the listed files."""
    raw = bundle.store.read(MANIFEST, MAX_MANIFEST_BYTES)
    if hashlib.sha256(raw).hexdigest() != bundle.sha256:
        raise BundleError(f"{bundle.path}: {MANIFEST} was changed after the bundle was opened; open it again")
    found = {MANIFEST: raw}
    if SIGNATURE in bundle.store.sizes():
        found[SIGNATURE] = bundle.store.read(SIGNATURE, MAX_SIGNATURE_BYTES)
    return found | {record.path: bundle.read(record.path) for record in bundle.manifest.files}


def _store(path: Path) -> Store:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        return DirectoryStore(path)
    if not stat.S_ISREG(mode):
        raise BundleError(f"{path}: neither a file nor a directory")
    with path.open("rb") as file:
        start = file.read(4)
    if start != ZIP_MAGIC:
        size = path.stat().st_size
        raise BundleError(
            f"{path}: {size} bytes that begin with {start!r}; a bundle is a zip or a directory; "
            f"for a checkpoint run 'spatialnet-edge build {shlex.quote(str(path))} --target here -o out.snb' first"
        )
    return ZipStore(path)


def _check(where: Path, record: FileRecord, content: bytes) -> None:
    if len(content) != record.size:
        found = f"more than {record.size}" if len(content) > record.size else str(len(content))
        raise BundleError(
            f"{where}: '{record.path}' has {found} bytes; the manifest says {record.size}; copy the bundle again"
        )
    found = hashlib.sha256(content).hexdigest()
    if found != record.sha256:
        raise BundleError(
            f"{where}: sha256 mismatch of '{record.path}': found {found[:16]}…, the manifest says {record.sha256[:16]}…; "
            f"the file was changed; copy the bundle again"
        )
    if content.startswith((*PICKLE_MAGIC, ZIP_MAGIC)):
        raise BundleError(f"{where}: '{record.path}' is a pickle or an archive; a bundle holds no code")
