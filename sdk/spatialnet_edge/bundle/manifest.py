"""The manifest of a bundle: its types, and a strict reader.

Other languages can use its JSON Schema: `manifest_schema()`, exported by `spatialnet-edge inspect --schema`.
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
    """Path, size and hash of one file of the bundle. The manifest and its signature are not listed."""

    path: RelativePath
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
    sha256: Sha256


class Golden(Contract, frozen=True):
    """Golden frames: real images, and the outputs of the FP32 reference for them.

    Attributes:
        frames: at least eight PNG files of the model's input size. For a model without exactly three bands, the bands are side
            by side in one grey image.
        expected: a JSON file: head name to a list of rows, one per frame.
        tolerance: largest allowed difference in probability. At most 0.25: a higher tolerance would accept an engine that
            gives another label.
    """

    frames: Annotated[tuple[RelativePath, ...], msgspec.Meta(min_length=8)]
    expected: RelativePath
    tolerance: Annotated[float, msgspec.Meta(gt=0, le=0.25)]


class DeviceRecord(Contract, frozen=True):
    """A GPU, with the properties that distinguish it from other GPUs of the same name.

    Attributes:
        name: from the driver; all Jetsons of one generation have the same name, such as "Orin".
        compute_capability: "8.7".
        multiprocessors: number of active ones; some Jetsons have fewer in low power modes.
        memory_bytes: total memory.
        board: the board's name in the device tree; None if there is none.
    """

    name: str
    compute_capability: str
    multiprocessors: Annotated[int, msgspec.Meta(ge=0)]
    memory_bytes: Annotated[int, msgspec.Meta(ge=0)]
    board: str | None = None


class EngineRecord(Contract, frozen=True):
    """A compiled or quantised variant of `model.onnx`, and the devices that it can run on.

    Attributes:
        precision: `fp32`, `fp16`, `int8` …, as requested.
        device: name of the device that it was built on, for people; empty if it runs anywhere.
        library_version: of the backend's library at build time; a plan requires the same version unless `version_compatible`.
        portable: True: any computer with the backend can run it (an ONNX graph). False: only the recorded device.
        weights: for a plan without weights, the graph in this bundle from which they are loaded; empty for a complete plan.
        built_on: the device that the plan was built on; None if it runs anywhere.
        version_compatible: whether later releases of the library can load the plan. Such a plan contains code for the host.
        dla_core: the deep-learning accelerator that the plan was built for; None: only the GPU.
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
    """Origin of the weights.

    Attributes:
        created: UTC, ISO 8601.
        tool: name and version of the program that wrote the bundle.
        source: the file that it was built from, with its sha256.
        command: the command that trained or built it.
        data: the training data; a set of images as "name: N images".
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
        """Number of images per training set."""
        found = (re.fullmatch(r"(.+): (\d+) images", each) for each in self.data)
        return {match[1]: int(match[2]) for match in found if match}


class CandidateRecord(Contract, frozen=True):
    """One variant of a build, chosen or rejected.

    Attributes:
        accuracy: head and data set to the metric on the gate's labelled images (top-1, or mean average precision).
        loss_points: the largest loss against FP32 over the heads, in percentage points.
        latency_ms: median latency of the engine alone on the building computer; 0 if it did not run there.
        executed: precision to the number of the plan's layers that run in it, as reported by the library; empty if it was not
            queried.
        stripped_size: bytes of the plan without its weights; 0 if none was made.
        corrupted_accuracy: mean metric over heads and data sets on corrupted images, 0 to 1; None if not evaluated.
        not_land_withheld: share of pictures without land that get no label, 0 to 1; None if not evaluated.
        verdict: `chosen`, `slower`, `accuracy`, `golden`, `not run here` … with the reason, in one line.
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
    """One layer of a plan; it often fuses several layers of the graph into one kernel.

    Attributes:
        precision: the narrowest precision in use, read from the library's inspector; empty if the inspector has none.
        ms: median time; 0 if it was not timed.
    """

    name: str
    precision: str
    ms: float = 0.0


class LayerSensitivity(Contract, frozen=True):
    """The effect of INT8 on one layer.

    Attributes:
        change: mean absolute change of all probabilities when only this layer is quantised.
        quantised: whether the layer is quantised in the variant that the search found.
    """

    layer: str
    change: float
    quantised: bool


class BuildRecord(Contract, frozen=True):
    """The report of a build: the computer, the data, the variants and the reason for the choice.

    Attributes:
        sensitivity: from the least to the most sensitive layer; empty without a search.
        layers: of the chosen plan, as executed; empty if nothing was compiled for this device.
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
    """The content of `manifest.json`.

    Attributes:
        format: version of this file format; 1.
        serial: increases with every release of a model, so that a device can refuse an older one.
        spec: inputs and outputs of the model.
        files: every file except the manifest and its signature.
        engines: in order of preference; `model.onnx` in FP32 is the last fallback.
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
    """The JSON Schema (2020-12) of `manifest.json`. It is the same for all Python versions, although some keep the indentation
    of docstrings."""
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | msgspec.json.schema(Manifest)
    for definition in schema["$defs"].values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    return schema


def encode_manifest(manifest: Manifest) -> bytes:
    """Encode a manifest as indented JSON in UTF-8 with a final newline."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def decode_manifest(raw: bytes, where: str) -> Manifest:
    """Parse and validate a manifest.

    Args:
        raw: at most 1 MiB of JSON in UTF-8 without a byte order mark. Duplicate keys, non-finite numbers, integers of more
            than 53 bits, control characters and depths over 32 are refused.
        where: the bundle's path, for messages.

    Raises:
        BundleError: not a manifest of format 1.
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
