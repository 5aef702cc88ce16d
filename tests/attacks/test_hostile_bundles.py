"""Hostile and damaged bundles: each is refused with its own reason, before unnecessary parsing."""

import io
import json
import os
import pickle
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import tiny_graph, write_tiny_bundle
from spatialnet_edge.bundle.manifest import decode_manifest, encode_manifest
from spatialnet_edge.bundle.reader import Bundle, open_bundle
from spatialnet_edge.bundle.writer import file_records
from spatialnet_edge.core.errors import BundleError, SpatialNetError

SAMPLED_CUTS = 60


def refused(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    return str(caught.value)


@pytest.mark.fault(16)
def test_truncated_anywhere_is_refused(tiny_path: Path, tmp_path: Path) -> None:
    whole = tiny_path.read_bytes()
    for cut in [0, 1, 3, 4, *range(5, len(whole), len(whole) // SAMPLED_CUTS), len(whole) - 1]:
        target = tmp_path / "cut.snb"
        target.write_bytes(whole[:cut])
        assert "cut.snb" in refused(target)


@pytest.mark.fault(16)
def test_a_truncated_file_names_both_sizes(tiny_copy: Bundle) -> None:
    model = tiny_copy.path / "model.onnx"
    size = model.stat().st_size
    model.write_bytes(model.read_bytes()[:-7])
    message = refused(tiny_copy.path)
    assert str(size) in message
    assert str(size - 7) in message


@pytest.mark.fault(17)
def test_one_flipped_bit_is_a_sha256_mismatch(tiny_copy: Bundle) -> None:
    model = tiny_copy.path / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 0x10
    model.write_bytes(content)
    assert "sha256 mismatch of 'model.onnx'" in refused(tiny_copy.path)


@pytest.mark.fault(27)
def test_a_file_swapped_after_opening_is_caught_when_it_is_read(tiny_copy: Bundle) -> None:
    model = tiny_copy.path / "model.onnx"
    model.write_bytes(bytes(reversed(model.read_bytes())))
    with pytest.raises(BundleError, match="sha256 mismatch"):
        tiny_copy.read("model.onnx")


@pytest.mark.fault(19)
def test_an_extra_file_is_refused(tiny_copy: Bundle) -> None:
    (tiny_copy.path / "golden" / "extra.py").write_text("print('hello')")
    assert "'golden/extra.py' is not listed" in refused(tiny_copy.path)


@pytest.mark.fault(19)
def test_a_missing_file_is_refused(tiny_copy: Bundle) -> None:
    (tiny_copy.path / "golden" / "frame_03.png").unlink()
    assert "'golden/frame_03.png' is listed in the manifest but missing" in refused(tiny_copy.path)


@pytest.mark.fault(20)
def test_a_link_is_refused(tiny_copy: Bundle) -> None:
    model = tiny_copy.path / "model.onnx"
    model.rename(tiny_copy.path.parent / "elsewhere.onnx")
    model.symlink_to(tiny_copy.path.parent / "elsewhere.onnx")
    assert "'model.onnx' is a link" in refused(tiny_copy.path)


@pytest.mark.fault(20)
def test_a_fifo_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.snb")
    assert "neither a file nor a directory" in refused(tmp_path / "pipe.snb")


def rezip(source: Path, target: Path, change: Callable[[zipfile.ZipFile, list[tuple[zipfile.ZipInfo, bytes]]], None]) -> Path:
    with zipfile.ZipFile(source) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(target, "w") as archive:
        change(archive, entries)
    return target


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "C:evil", "back\\slash"])
def test_zip_slip_names_are_refused(tiny_path: Path, tmp_path: Path, name: str) -> None:
    def add(archive: zipfile.ZipFile, entries: list[Any]) -> None:
        for entry, content in [*entries, (zipfile.ZipInfo(name), b"x")]:
            archive.writestr(entry, content)

    message = refused(rezip(tiny_path, tmp_path / "slip.snb", add))
    assert "unsafe entry name" in message
    assert name in message


@pytest.mark.fault(20)
def test_a_link_in_a_zip_is_refused(tiny_path: Path, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16

    def add(archive: zipfile.ZipFile, entries: list[Any]) -> None:
        for entry, content in [*entries, (link, b"/etc/passwd")]:
            archive.writestr(entry, content)

    assert "'link' is not a plain file" in refused(rezip(tiny_path, tmp_path / "link.snb", add))


@pytest.mark.fault(21)
def test_a_compressed_zip_is_refused_so_that_no_bomb_can_unfold(tmp_path: Path) -> None:
    target = tmp_path / "bomb.snb"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b" " * 50_000_000)
    assert "is compressed" in refused(target)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_duplicate_name_is_refused(tiny_path: Path, tmp_path: Path) -> None:
    def add(archive: zipfile.ZipFile, entries: list[Any]) -> None:
        for entry, content in [*entries, entries[-1]]:
            archive.writestr(entry, content)

    assert "occurs twice" in refused(rezip(tiny_path, tmp_path / "twice.snb", add))


def resign(bundle: Bundle, files: dict[str, bytes]) -> None:
    """Update the manifest for changed files, as an attacker of an unsigned bundle can."""
    import msgspec

    for name, content in files.items():
        (bundle.path / name).write_bytes(content)
    contents = {record.path: (bundle.path / record.path).read_bytes() for record in bundle.manifest.files}
    manifest = msgspec.structs.replace(bundle.manifest, files=file_records(contents))
    (bundle.path / "manifest.json").write_bytes(encode_manifest(manifest))


class Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch /tmp/owned",))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_pickle_is_refused_by_its_first_bytes(tiny_copy: Bundle, protocol: int) -> None:
    resign(tiny_copy, {"model.onnx": pickle.dumps(Exploit(), protocol)})
    assert "is a pickle or an archive" in refused(tiny_copy.path)


@pytest.mark.fault(23)
def test_a_torch_archive_is_refused(tiny_copy: Bundle) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Exploit()))
    resign(tiny_copy, {"model.onnx": buffer.getvalue()})
    assert "is a pickle or an archive" in refused(tiny_copy.path)


@pytest.mark.fault(24)
def test_external_data_is_refused(tiny_copy: Bundle) -> None:
    import onnx

    model = onnx.load_from_string(tiny_graph())
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    resign(tiny_copy, {"model.onnx": model.SerializeToString()})
    assert "refers to data outside the bundle" in refused(tiny_copy.path)


def test_a_checkpoint_is_refused_with_the_command_that_helps(tmp_path: Path) -> None:
    (tmp_path / "student.pt").write_bytes(b"\x80\x02whatever")
    assert "spatialnet-edge build" in refused(tmp_path / "student.pt")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"{}", "missing required field"),
        (b'{"format": 2}', "format 2; this version reads format 1"),
        (b'{"format": 1, "format": 1}', "occurs twice"),
        (b'{"format": 1, "serial": NaN}', "NaN is not a JSON number"),
        (b"[" * 40 + b"]" * 40, "nested deeper than 32"),
        (b"\xff\xfe{}", "cannot be read"),
        (b" " * ((1 << 20) + 1), "at most 1048576"),
    ],
)
def test_a_hostile_manifest_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        decode_manifest(raw, "here")


@pytest.mark.fault(22)
def test_brackets_inside_strings_are_not_depth(tiny_copy: Bundle) -> None:
    raw = json.loads(encode_manifest(tiny_copy.manifest))
    raw["provenance"]["command"] = "\\" + "[" * 50 + '"'
    assert decode_manifest(json.dumps(raw).encode(), "here").provenance.command.count("[") == 50


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_give_a_manifest_or_our_error(raw: bytes) -> None:
    with pytest.raises(BundleError):
        decode_manifest(raw, "here")


@pytest.mark.fault(17)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage_to_a_bundle_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "damage"
    folder.mkdir(exist_ok=True)
    original = folder / "original.snb"
    if not original.exists():
        write_tiny_bundle(original)
    content = bytearray(original.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    damaged = folder / "damaged.snb"
    damaged.write_bytes(content)
    try:
        opened = open_bundle(damaged)
    except SpatialNetError:
        return
    # A flip in zip metadata (dates, versions) changes no file: all files must equal the written ones.
    reference = open_bundle(original)
    assert opened.sha256 == reference.sha256
    assert all(opened.read(record.path) == reference.read(record.path) for record in reference.manifest.files)
