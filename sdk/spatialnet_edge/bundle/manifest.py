"""The manifest of a bundle: its types, and a reader that trusts nothing.

The JSON Schema that other languages can check against is `manifest_schema()`, exported by `spatialnet-edge inspect --schema`.
"""

from __future__ import annotations

import inspect
import re
from typing import Annotated, Any, Literal, TypeAlias, cast

import msgspec

from spatialnet_edge.bundle.strict_json import MAX_INTEGER, strict_json
from spatialnet_edge.core.errors import BundleError
from spatialnet_edge.core.spec import Contract, Label, ModelSpec

FORMAT = 1
MAX_MANIFEST_BYTES = 1 << 20
GRAPH_BACKENDS = ("onnxruntime", "onnxruntime_cuda", "onnxruntime_tensorrt", "openvino")
"""Backends whose engine files are ONNX graphs, whatever the files are called."""

Sha256: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
RelativePath: TypeAlias = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*){0,3}$", max_length=200)
]


class FileRecord(Contract, frozen=True):
    """One file of the bundle, beside the manifest and its signature."""

    path: RelativePath
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
    sha256: Sha256


class Golden(Contract, frozen=True):
    """Real frames, and what the FP32 reference answered.

    Attributes:
        frames: PNG files of the model's input size, at least eight; of a model that does not take three bands, in grey, with its
            bands side by side.
        expected: a JSON file: head name to a list of rows, one for each frame.
        tolerance: the largest difference in probability at which an engine still counts as this model. A larger one than 0.25 would
            pass an engine that gives another label.
    """

    frames: Annotated[tuple[RelativePath, ...], msgspec.Meta(min_length=8)]
    expected: RelativePath
    tolerance: Annotated[float, msgspec.Meta(gt=0, le=0.25)]


class DeviceRecord(Contract, frozen=True):
    """A GPU, with what tells it from others of the same name.

    Attributes:
        name: as the driver says it; every Jetson of one generation has the same, such as "Orin".
        compute_capability: "8.7".
        multiprocessors: that are switched on; on some Jetsons fewer in low power modes.
        memory_bytes: in all.
        board: the board's name in the device tree; None where there is none.
    """

    name: str
    compute_capability: str
    multiprocessors: Annotated[int, msgspec.Meta(ge=0)]
    memory_bytes: Annotated[int, msgspec.Meta(ge=0)]
    board: str | None = None


class EngineRecord(Contract, frozen=True):
    """A compiled or quantised form of `model.onnx`, and where it may run.

    Attributes:
        precision: `fp32`, `fp16`, `int8` …, as requested.
        device: what it was built on, for people; empty for what runs anywhere.
        library_version: of the backend's library at build time; an engine plan runs on no other unless `version_compatible`.
        portable: whether any machine with the backend can run it (an ONNX graph), or the recorded device alone.
        weights: the graph in this bundle from which a plan without weights gets them when it is loaded; empty for a whole one.
        built_on: the device that the plan was built on; None for what runs anywhere.
        version_compatible: whether later releases of the library can load the plan. Such a plan holds code for the host.
        dla_core: the deep-learning accelerator that the plan was built for; None for the GPU alone.
    """

    path: RelativePath
    backend: Label
    precision: Label
    device: str = ""
    library_version: str = ""
    portable: bool = True
    weights: str = ""
    built_on: DeviceRecord | None = None
    version_compatible: bool = False
    dla_core: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Provenance(Contract, frozen=True):
    """Where the weights come from.

    Attributes:
        created: UTC, ISO 8601.
        tool: name and version of what wrote the bundle.
        source: what it was built from, with its sha256.
        command: the command that trained or built it.
        data: what it was trained on; a set of images as "name: N images".
        licence: of the weights.
    """

    created: str
    tool: str
    source: str
    command: str = ""
    data: tuple[str, ...] = ()
    licence: str = ""

    @property
    def image_counts(self) -> dict[str, int]:
        """Of each set of images that it was trained on, how many."""
        found = (re.fullmatch(r"(.+): (\d+) images", each) for each in self.data)
        return {match[1]: int(match[2]) for match in found if match}


class CandidateRecord(Contract, frozen=True):
    """One candidate of a build, kept whether it won or lost.

    Attributes:
        accuracy: head and data set to the figure on the gate's labelled images (top-1, or mean average precision).
        loss_points: the largest loss against FP32 over the heads, in points (hundredths).
        latency_ms: p50 of the engine alone on the building machine; 0 if it did not run there.
        executed: precision to how many of the plan's layers run in it, as the library itself says; empty if it was not asked.
        stripped_size: bytes of the plan without its weights; 0 if none was made.
        corrupted_accuracy: mean figure over the heads and sets on corrupted images, 0 to 1; None if it was not judged by them.
        not_land_withheld: share of pictures without land that get no label, 0 to 1; None if it was not judged by them.
        verdict: `chosen`, `slower`, `accuracy`, `golden`, `not run here` … and why, in one line.
    """

    name: Label
    size: int
    accuracy: dict[str, float]
    loss_points: float
    agreement: float
    latency_ms: float
    latency_p99_ms: float
    chosen: bool
    verdict: str
    executed: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    stripped_size: int = 0
    corrupted_accuracy: float | None = None
    not_land_withheld: float | None = None


class ExecutedLayer(Contract, frozen=True):
    """One layer of a plan, often several of the graph's in one kernel.

    Attributes:
        precision: the narrowest that it computes in, read back from the library's inspector; empty where it says nothing.
        ms: median of its time; 0 if it was not timed.
    """

    name: str
    precision: str
    ms: float = 0.0


class LayerSensitivity(Contract, frozen=True):
    """What INT8 does to one layer.

    Attributes:
        change: mean absolute change of all probabilities when this layer alone is quantised.
        quantised: whether it is, in the candidate that the search found.
    """

    layer: str
    change: float
    quantised: bool


class BuildRecord(Contract, frozen=True):
    """The report of a build: on what machine, with which data, what was tried and why one was chosen.

    Attributes:
        sensitivity: from the least sensitive layer to the most; empty unless it was searched for.
        layers: of the chosen plan, as they were executed; empty where nothing was compiled for this very device.
    """

    target: Label
    machine: str
    libraries: dict[str, str]
    budget_points: float
    labelled_images: int
    calibration: str
    candidates: tuple[CandidateRecord, ...]
    reason: str
    sensitivity: tuple[LayerSensitivity, ...] = ()
    layers: tuple[ExecutedLayer, ...] = ()


class Manifest(Contract, frozen=True):
    """`manifest.json`.

    Attributes:
        format: of this file; 1.
        serial: rises with every release of a model, so that a device can refuse an older one.
        spec: what goes in and what comes out.
        files: every file but the manifest and its signature.
        engines: in order of preference; `model.onnx` in FP32 is the fallback behind them all.
    """

    format: Literal[1]
    serial: Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
    spec: ModelSpec
    files: tuple[FileRecord, ...]
    golden: Golden
    provenance: Provenance
    engines: tuple[EngineRecord, ...] = ()
    build: BuildRecord | None = None

    def __post_init__(self) -> None:
        paths = [record.path for record in self.files]
        if len(set(paths)) != len(paths):
            raise ValueError("a file is listed twice")
        named = [*self.golden.frames, self.golden.expected, "model.onnx", *(engine.path for engine in self.engines)]
        named += [engine.weights for engine in self.engines if engine.weights]
        if missing := sorted(set(named) - set(paths)):
            raise ValueError(f"'{missing[0]}' is used but not listed under files")

    @property
    def graphs(self) -> frozenset[str]:
        """The files that must be self-contained ONNX graphs."""
        named = {record.path for record in self.files if record.path.endswith(".onnx")}
        engines = {engine.path for engine in self.engines if engine.backend in GRAPH_BACKENDS}
        return frozenset({"model.onnx", *named, *engines, *(engine.weights for engine in self.engines if engine.weights)})


def manifest_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of `manifest.json`, the same from every version of Python: some leave docstrings indented."""
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | msgspec.json.schema(Manifest)
    for definition in schema["$defs"].values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    return schema


def encode_manifest(manifest: Manifest) -> bytes:
    """Indented JSON, UTF-8, with a final newline."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def decode_manifest(raw: bytes, where: str) -> Manifest:
    """Parse and check a manifest.

    Args:
        raw: at most 1 MiB of JSON in UTF-8 without a byte order mark; duplicate keys, numbers that are not finite, integers of more
            than 53 bits, control characters and depths over 32 are refused.
        where: the bundle's path, for messages.

    Raises:
        BundleError: it is not a manifest of format 1.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{where}: manifest.json has {len(raw)} bytes; at most {MAX_MANIFEST_BYTES} are allowed")
    try:
        parsed = strict_json(raw)
        found: Any = cast(dict[str, Any], parsed).get("format") if isinstance(parsed, dict) else None
        if isinstance(found, int) and found != FORMAT:
            raise BundleError(
                f"{where}: manifest format {found}; this version reads format {FORMAT}; "
                f"rebuild the bundle or install the spatialnet-edge that wrote it"
            )
        return msgspec.convert(parsed, Manifest, strict=True)
    except (ValueError, OverflowError, RecursionError) as error:
        raise BundleError(f"{where}: manifest.json cannot be read: {error}") from error
