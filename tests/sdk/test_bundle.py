"""A bundle is written atomically and verified before it is parsed, and the same content gives the same bytes."""

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from conftest import ROOT, TINY, tiny_graph, write_tiny_bundle
from spatialnet_edge.api import load
from spatialnet_edge.bundle.manifest import encode_manifest, manifest_schema
from spatialnet_edge.bundle.reader import MODEL, locate, open_bundle
from spatialnet_edge.core.errors import BundleError


@pytest.mark.parametrize("name", ["tiny.snb", "tiny"])
def test_a_file_and_a_directory_hold_the_same(tmp_path: Path, name: str) -> None:
    bundle = write_tiny_bundle(tmp_path / name)
    reopened = open_bundle(tmp_path / name)
    assert reopened.sha256 == bundle.sha256
    assert reopened.read(MODEL) == tiny_graph()
    assert reopened.spec == TINY
    frames, expected = reopened.golden()
    assert frames.shape == (8, *TINY.input.shape)
    assert expected["shade"].dtype == np.float32
    assert reopened.signature == "unsigned"


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = (write_tiny_bundle(tmp_path / name).path for name in ("one.snb", "two.snb"))
    assert one.read_bytes() == two.read_bytes()


def test_rewriting_is_atomic_and_leaves_no_temporary_files(tmp_path: Path) -> None:
    for name in ("a.snb", "b"):
        write_tiny_bundle(tmp_path / name)
        changed = write_tiny_bundle(tmp_path / name, tiny_graph(gain=0.04))
        assert open_bundle(tmp_path / name).sha256 == changed.sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.snb", "b"]


def test_a_directory_that_is_no_bundle_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        write_tiny_bundle(tmp_path / "precious")
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years of work"


def test_the_manifest_keeps_its_json_schema(tiny_path: Path) -> None:
    schema = manifest_schema()
    validator = jsonschema.Draft202012Validator(schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    manifest = json.loads(encode_manifest(open_bundle(tiny_path).manifest))
    validator.validate(manifest)
    for break_it in ("format", "spec", "files"):
        assert list(validator.iter_errors({key: value for key, value in manifest.items() if key != break_it}))
    assert list(validator.iter_errors(manifest | {"surprise": 1}))


def without_order(schema: str) -> Any:
    """Sort alternatives, because their order differs between versions of msgspec."""
    return json.loads(schema, object_hook=lambda part: part | {"anyOf": sorted(part.get("anyOf", ()), key=json.dumps)})


def test_the_published_schema_is_the_current_one() -> None:
    published = (ROOT / "docs" / "manifest.schema.json").read_text(encoding="utf-8")
    assert without_order(published) == without_order(json.dumps(manifest_schema())), "run 'make schema'"


def test_a_missing_bundle_is_named_with_what_to_do() -> None:
    with pytest.raises(BundleError, match=r"no such bundle.*spatialnet-edge build"):
        open_bundle("nowhere.snb")


def test_an_unknown_builtin_names_the_known_ones() -> None:
    with pytest.raises(BundleError, match="builtin:spatialnet-s"):
        open_bundle("builtin:teacher")


@pytest.mark.parametrize(("name", "side"), [("student", 96), ("student-160", 160)])
def test_shipped_models_pass_their_golden_tests(name: str, side: int) -> None:
    with load(f"builtin:{name}") as model:
        assert model.bundle.spec.input.shape == (side, side, 3)
        assert model.bundle.signature == "shipped with this version"
        assert model.golden.difference < 1e-3


@pytest.mark.parametrize("path", ["{absolute}", "../models/student"])
def test_a_path_is_not_trusted_like_a_shipped_model(path: str, tmp_path: Path) -> None:
    shutil.copy(locate("builtin:student"), tmp_path / "mine.snb")
    with pytest.raises(BundleError, match="no model 'builtin:"):
        open_bundle("builtin:" + path.format(absolute=tmp_path / "mine"))
