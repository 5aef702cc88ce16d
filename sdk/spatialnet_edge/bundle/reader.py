"""A bundle on disk: a directory, or the same as one uncompressed zip (`.snb`).

Order of trust, each step before the next: size cap → signature → exact file set → hash of the very buffer that is used → parse →
structure of each graph (`onnx_structure.py`) → golden test on probabilities. No pickle, no external data, no code.

The signature stands in `manifest.sig`; who may sign is said in `trust.py`.
"""

from __future__ import annotations

import hashlib
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
BUILTIN = {"spatialnet-s": "student.snb", "spatialnet-m": "student-160.snb"}
"""The shipped models, and their files."""
ALIASES = {"student": "spatialnet-s", "student-160": "spatialnet-m"}
"""Their earlier names, accepted in this release."""
SHORT_HASH_DIGITS = 16

PICKLE_MAGIC = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
ROUNDING = 1e-3
"""By which a golden answer may lie outside what is possible."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle whose manifest was read and whose files all have the recorded size and hash.

    Attributes:
        path: where it lies.
        manifest: see `manifest.py`.
        sha256: of the raw manifest, which names every other hash: the bundle's identity.
        signature: `signed by KEY`, `shipped with this version`, `unsigned`, or `unchecked` (by a key unknown here).
    """

    path: Path
    store: Store
    manifest: Manifest
    sha256: str
    signature: str

    @property
    def spec(self) -> ModelSpec:
        return self.manifest.spec

    @property
    def short_hash(self) -> str:
        """The first 16 hexadecimal digits of `sha256`: what results, records and events name the bundle by."""
        return self.sha256[:SHORT_HASH_DIGITS]

    def read(self, path: str) -> bytes:
        """The bytes of a file, hashed after reading: what is returned is what was promised.

        Raises:
            BundleError: not listed, of another size, or changed.
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
        """The golden frames, uint8 `[N, H, W, bands]`, and each output's expected probabilities, float32 `[N, width]`.

        Raises:
            BundleError: a frame is no PNG of the model's size, or an answer is not possible.
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
            raise BundleError(f"{self.path}: the golden answers cannot be read: {first_line(error)}") from error
        for head in self.spec.outputs:
            found = expected[head.name]
            if found.shape != (count, head.width):
                raise BundleError(
                    f"{self.path}: golden answers of '{head.name}' have shape {found.shape}; expected {(count, head.width)}"
                )
            low, high = (head.low, head.high) if isinstance(head, Regression) else (0.0, 1.0)
            if not (found.min() >= low - ROUNDING and found.max() <= high + ROUNDING):  # so written that a NaN is refused
                raise BundleError(
                    f"{self.path}: golden answers of '{head.name}' go from {found.min()} to {found.max()}; expected {low} to {high}"
                )
        return expected


def locate(name: str | Path) -> Path:
    """The path of a bundle; `builtin:spatialnet-s` and `builtin:spatialnet-m` are shipped.

    Raises:
        BundleError: there is no such file or directory.
    """
    text = str(name)
    if text.startswith(BUILTIN_PREFIX):
        model = text.removeprefix(BUILTIN_PREFIX)
        file = BUILTIN.get(ALIASES.get(model, model))
        if file is None:  # a path behind the prefix would be trusted as if it were shipped
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
    """Open a bundle in the order of trust; nothing but the manifest is parsed.

    Args:
        name: path of a `.snb` file or a bundle directory, or `builtin:spatialnet-s`, which is trusted as this package is.
        trust: who may sign; None for what `trust_here` says.

    Raises:
        BundleError: with the first thing that is wrong.
    """
    path = locate(name)
    store = _store(path)
    sizes = store.sizes()
    if MANIFEST not in sizes:
        if any(name.endswith((".safetensors", "data.pkl")) for name in sizes):  # as training writes it, and as it once did
            raise BundleError(f"{path}: a training checkpoint; build it first: spatialnet-edge build {path} -o model.snb")
        raise BundleError(f"{path}: no {MANIFEST} inside; this is not a spatialnet-edge bundle")
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
        raise BundleError(f"{path}: '{missing[0]}' is listed in the manifest and missing; copy the bundle again")
    bundle = Bundle(path, store, manifest, hashlib.sha256(raw).hexdigest(), signature)
    for record in manifest.files:
        bundle.read(record.path)
    return bundle


def contents(bundle: Bundle) -> dict[str, bytes]:
    """Every file of a bundle as it lies there, hashed once more: the manifest, its signature if any, and what it lists."""
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
            f"for a checkpoint run 'spatialnet-edge build {path} --target here -o out.snb' first"
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
