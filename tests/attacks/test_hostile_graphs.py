"""Hostile graphs, golden frames and numbers with correct hashes: refused before a library parses them."""

import io
import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from conftest import TINY, tiny_graph
from spatialnet_edge.api import load
from spatialnet_edge.bundle.manifest import decode_manifest, encode_manifest
from spatialnet_edge.bundle.onnx_structure import refuse_unsafe_graph
from spatialnet_edge.bundle.reader import Bundle, open_bundle
from spatialnet_edge.bundle.strict_json import strict_json
from spatialnet_edge.bundle.trust import Trust
from spatialnet_edge.bundle.writer import file_records
from spatialnet_edge.core.errors import BundleError, EngineUnavailable
from spatialnet_edge.core.pixels import decode_rgb
from spatialnet_edge.core.spec import Regression

ANY = Trust(allow_unsigned=True)
OUTSIDE = "refers to data outside the bundle"


def varint(value: int, padding: int = 0) -> bytes:
    """A varint that is `padding` bytes longer than necessary."""
    found = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        more = bool(value) or padding > 0
        found.append(low | (0x80 if more else 0))
        if not more:
            return bytes(found)
        if not value:
            found += b"\x80" * (padding - 1) + b"\x00"
            return bytes(found)


def field(number: int, content: bytes, padding: int = 0) -> bytes:
    return varint(number << 3 | 2) + varint(len(content), padding) + content


def external(tensor: onnx.TensorProto) -> onnx.TensorProto:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret.bin")
    return tensor


def with_initialiser(model: onnx.ModelProto) -> None:
    external(model.graph.initializer[0])


def with_constant(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["c"], value=external(helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])))
    model.graph.node.append(node)


def with_nested_graph(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [], [external(helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]))])
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))


def with_function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["c"], value=external(helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])))
    model.functions.append(helper.make_function("own", "f", [], ["c"], [node], [helper.make_opsetid("", 18)]))


def with_sparse_tensor(model: onnx.ModelProto) -> None:
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(external(helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])))


def with_location_alone(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


@pytest.mark.fault(52)
@pytest.mark.parametrize(
    "spoil",
    [with_initialiser, with_constant, with_nested_graph, with_function, with_sparse_tensor, with_location_alone],
)
def test_external_data_is_found_wherever_it_is(spoil: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load_from_string(tiny_graph())
    spoil(model)
    with pytest.raises(ValueError, match=OUTSIDE):
        refuse_unsafe_graph(model.SerializeToString())


@pytest.mark.fault(52)
def test_an_overlong_varint_is_refused() -> None:
    """ONNX Runtime accepts such lengths and values, and read the external file."""
    tensor = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]).SerializeToString()
    entry = field(1, b"location", padding=1) + field(2, b"secret.bin")
    model = onnx.load_from_string(tiny_graph())
    for hidden in (field(13, entry), varint(14 << 3) + varint(1, padding=3), varint(14 << 3, padding=2) + b"\x01"):
        graph = model.graph.SerializeToString() + field(5, tensor + hidden)
        with pytest.raises(ValueError, match=rf"{OUTSIDE}|more bytes than necessary"):
            refuse_unsafe_graph(varint(1 << 3) + b"\x0a" + field(7, graph))


@pytest.mark.fault(52)
def test_other_formats_and_operators_that_read_files_are_refused(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "m.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(tiny_graph(), options, providers=["CPUExecutionProvider"])
    with pytest.raises(ValueError, match="ONNX Runtime's own format"):
        refuse_unsafe_graph((tmp_path / "m.ort").read_bytes())
    model = onnx.load_from_string(tiny_graph())
    model.graph.node.append(helper.make_node("EPContext", [], ["x"], domain="com.microsoft", ep_cache_context="../cache.bin"))
    with pytest.raises(ValueError, match="EPContext, which reads another file"):
        refuse_unsafe_graph(model.SerializeToString())
    for other in (b"", b"<?xml version='1.0'?><net/>", b"\x08\x0a", b"x" * 1000, b"\0" * 1000, b"\x0b\x0c"):
        with pytest.raises(ValueError, match=r".+"):
            refuse_unsafe_graph(other)
    deep = b"\x0a\x01x"
    for _ in range(100):
        deep = field(1, field(5, field(6, deep)))
    with pytest.raises(ValueError, match="nested deeper"):
        refuse_unsafe_graph(varint(1 << 3) + b"\x0a" + field(7, deep))


@pytest.mark.fault(52)
def test_external_data_is_refused_after_any_change() -> None:
    """Random changes of a graph with external data: the walk refuses every graph that parsers accept and that is external."""
    model = onnx.load_from_string(tiny_graph())
    with_constant(model)
    good, rng = model.SerializeToString(), random.Random(3)
    taken = 0
    for _ in range(3000):
        changed = bytearray(good)
        for _ in range(rng.choice((1, 1, 2, 4))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        try:
            refuse_unsafe_graph(bytes(changed))
        except ValueError:
            continue
        taken += 1
        found = onnx.load_from_string(bytes(changed))
        assert not any(tensor.external_data or tensor.data_location for tensor in found.graph.initializer)
        for node in found.graph.node:
            assert not any(attribute.t.external_data or attribute.t.data_location for attribute in node.attribute)
    assert taken > 0


def reseal(bundle: Bundle, files: dict[str, bytes], change: Callable[[dict[str, Any]], None] = lambda manifest: None) -> Path:
    """Put files into a bundle's directory, and make the manifest agree."""
    for name, content in files.items():
        (bundle.path / name).parent.mkdir(exist_ok=True)
        (bundle.path / name).write_bytes(content)
    names = {record.path for record in bundle.manifest.files} | set(files)
    contents = {name: (bundle.path / name).read_bytes() for name in names}
    manifest = json.loads(encode_manifest(bundle.manifest))
    manifest["files"] = msgspec.to_builtins(file_records(contents))
    change(manifest)
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    return bundle.path


@pytest.mark.fault(52)
@pytest.mark.parametrize("name", ["model.onnx", "engines/int8.bin"])
def test_an_engine_under_any_name_is_walked(tiny_copy: Bundle, name: str) -> None:
    model = onnx.load_from_string(tiny_graph())
    with_initialiser(model)
    engines = [{"path": name, "backend": "onnxruntime", "precision": "int8"}]
    path = reseal(tiny_copy, {name: model.SerializeToString()}, lambda manifest: manifest.update(engines=engines))
    with pytest.raises(BundleError, match=OUTSIDE):
        open_bundle(path, ANY)


def picture(kind: str, size: tuple[int, int] = (32, 32)) -> bytes:
    target = io.BytesIO()
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(target, kind)
    return target.getvalue()


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n(x) (w) file pop showpage\n%%EOF\n"


@pytest.mark.fault(52)
@pytest.mark.parametrize("frame", [POSTSCRIPT, picture("EPS"), picture("GIF"), picture("BMP"), picture("JPEG"), b""])
def test_a_golden_frame_is_a_png(tiny_copy: Bundle, frame: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin

    def interpreter(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", interpreter)
    bundle = open_bundle(reseal(tiny_copy, {tiny_copy.manifest.golden.frames[0]: frame}), ANY)
    with pytest.raises(BundleError, match=r"golden frame '.*' is not an image; .*expected one of PNG"):
        bundle.golden()
    with pytest.raises(BundleError):
        load(bundle.path, trust=ANY)


@pytest.mark.fault(52)
@pytest.mark.parametrize("kind", ["EPS", "PCX", "TGA", "ICO", "PPM"])
def test_a_still_of_another_format_is_refused_by_its_first_bytes(kind: str) -> None:
    with pytest.raises(ValueError, match=r"not an image; it begins with .* expected one of JPEG, PNG, TIFF"):
        decode_rgb(picture(kind))


@pytest.mark.fault(53)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
def test_a_damaged_picture_raises_nothing_but_value_error(kind: str) -> None:
    good, rng = picture(kind, (24, 24)), random.Random(kind)
    for _ in range(1500):
        changed = bytearray(good)
        for _ in range(rng.choice((1, 2, 4, 8))):
            changed[rng.randrange(min(len(changed), rng.choice((32, 128, 10**6))))] = rng.choice(
                (0, 255, 127, rng.randrange(256))
            )
        if rng.random() < 0.2:
            del changed[rng.randrange(len(changed)) :]
        with suppress(ValueError):
            decode_rgb(bytes(changed))


@pytest.mark.fault(53)
@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (b"[" * 100_000, "nested deeper"),
        (b'{"shade": ' + b"1" + b"0" * 400 + b"}", "more than 53 bits"),
        (b'{"shade": 1e999}', "too large"),
        (b'{"shade": NaN}', "not a JSON number"),
        (b"[]", "cannot be read"),
        (b"\xff\xfe{\x00}\x00", "cannot be read"),
    ],
)
def test_hostile_golden_answers_are_refused(tiny_copy: Bundle, answers: bytes, reason: str) -> None:
    bundle = open_bundle(reseal(tiny_copy, {tiny_copy.manifest.golden.expected: answers}), ANY)
    with pytest.raises(BundleError, match=reason):
        bundle.golden()


@pytest.mark.fault(53)
@pytest.mark.parametrize("file", ["plan.hef", "model.onnx"])
def test_an_unknown_backend_in_a_bundle_is_skipped(tiny_copy: Bundle, file: str) -> None:
    engines = [{"path": file, "backend": "hailo", "precision": "int8", "portable": False}]
    added = {} if file == "model.onnx" else {file: b"\x01HEF"}
    path = reseal(tiny_copy, added, lambda manifest: manifest.update(engines=engines))
    with load(path, trust=ANY) as model:
        assert (model.opened.record.path, model.opened.record.backend) == ("model.onnx", "onnxruntime")
        assert "hailo" in model.opened.rejected[0]
    with pytest.raises(EngineUnavailable, match="no backend 'hailo'; available"):
        load(path, trust=ANY, fallback=False)


@pytest.mark.fault(61)
@pytest.mark.parametrize("value", [0.3, 1, 0, -0.1, "1e999", "NaN"])
def test_a_tolerance_that_passes_anything_is_refused(tiny_copy: Bundle, value: object) -> None:
    raw = encode_manifest(tiny_copy.manifest).replace(b'"tolerance": 0.002', f'"tolerance": {value}'.encode())
    assert raw != encode_manifest(tiny_copy.manifest)
    with pytest.raises(BundleError, match=r"tolerance|too large|not a JSON number"):
        decode_manifest(raw, "here")


@pytest.mark.fault(61)
@pytest.mark.parametrize(
    ("low", "high"), [(0, float("inf")), (float("-inf"), 0), (0, 1e30), (float("nan"), 1), (0, float("nan"))]
)
def test_an_endless_range_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="has the bound"):
        Regression(name="level", unit="", low=low, high=high)


@pytest.mark.fault(61)
def test_golden_answers_that_are_not_possible_are_refused(tiny_copy: Bundle) -> None:
    path = tiny_copy.manifest.golden.expected
    table = json.loads(tiny_copy.read(path))
    for head, value in (("shade", 1.5), ("bands", -0.5), ("level", 300)):
        spoilt = table | {head: [[value] * len(row) for row in table[head]]}
        bundle = open_bundle(reseal(tiny_copy, {path: json.dumps(spoilt).encode()}), ANY)
        with pytest.raises(BundleError, match=rf"golden outputs of '{head}' range from"):
            bundle.golden()


@pytest.mark.fault(61)
@pytest.mark.parametrize("bound", [300.0, 1e6, 1e9])
def test_a_range_far_wider_than_the_golden_answers_is_refused(tiny_copy: Bundle, bound: float) -> None:
    """The golden test compares shares of the range: of -1e9 to 1e9, any engine gives the right share."""

    def widen(manifest: dict[str, Any]) -> None:
        level = next(head for head in manifest["spec"]["tasks"] if head["name"] == "level")
        level.update(low=-bound, high=bound)

    bundle = open_bundle(reseal(tiny_copy, {}, widen), ANY)
    if bound == 300.0:
        bundle.golden()
        return
    with pytest.raises(BundleError, match=r"'level' differ by .* so that the golden test would pass any engine"):
        bundle.golden()


@pytest.mark.fault(22)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_a_manifest_is_utf_8(tiny_copy: Bundle, encoding: str) -> None:
    """Python's parser guesses other encodings, whose brackets the depth check cannot read."""
    with pytest.raises(BundleError, match="cannot be read"):
        decode_manifest(encode_manifest(tiny_copy.manifest).decode().encode(encoding), "here")


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    "text", [r'"a\ud800b"', r'"a\u001b]0;x"', r'"\u009b"', r'{"\ud800": 1}', "[" + "9" * 20 + "]", "1e400"]
)
def test_ambiguous_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        strict_json(text.encode())


def test_json_keeps_what_is_usual() -> None:
    assert strict_json('{"a": [1, -2.5, "ä\\n\\t", true, null, 9007199254740991]}'.encode()) == {
        "a": [1, -2.5, "ä\n\t", True, None, 2**53 - 1]
    }


def test_the_walk_accepts_valid_graphs() -> None:
    refuse_unsafe_graph(tiny_graph())
    for name in ("builtin:student", "builtin:student-160"):
        assert open_bundle(name).read("model.onnx")
    assert TINY.heads
