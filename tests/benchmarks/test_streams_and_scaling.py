"""Streams together, frames without a decoder, and how cost grows."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime as ort
import pytest

from conftest import CLIP, clip_frames
from spatialnet_benchmarks import efficiency
from spatialnet_benchmarks.peer_sdks import for_ultralytics
from spatialnet_benchmarks.scaling import draw, fitted
from spatialnet_benchmarks.streams import InMemory, no_decoding, streams
from spatialnet_edge.api import load
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.core.frames import preprocess


def test_a_power_law_is_found_again() -> None:
    sizes = [1.0, 2.0, 4.0, 8.0]
    found = fitted("size", sizes, [3 * size**1.7 for size in sizes])
    assert found.exponent == pytest.approx(1.7)
    assert found.error == pytest.approx(0, abs=1e-9)


def test_every_series_is_drawn(tmp_path) -> None:
    draw([fitted(f"thing {n}", (1, 2, 4), (1.0, 2.1, 3.9)) for n in range(4)], tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_streams_share_an_engine_and_nothing_is_lost(tiny_path) -> None:
    with load(tiny_path, threads=1) as model:
        found = streams(model, (1, 3))
        assert set(found) == {"1", "3"}
        assert all(0 < each["worst_of_mean"] <= 1 for each in found.values())
        measured = no_decoding(model, clip_frames(3), 2)
        assert measured["range"][0] <= measured["of_engine_only"] <= measured["range"][1]
        assert len(list(model.stream(InMemory(clip_frames(3), 7), policy="every"))) == 7


def test_the_graph_for_ultralytics_gives_the_same_probabilities() -> None:
    bundle = open_bundle("builtin:student")
    spec = bundle.spec.input
    wrapped = for_ultralytics(bundle.read("model.onnx"), spec.height, bundle.spec.head("land_use").labels)
    image = preprocess(clip_frames(1)[0], spec)
    given = (image.astype(np.float32) / 255).transpose(2, 0, 1)[None]
    ours = ort.InferenceSession(bundle.read("model.onnx")).run(["land_use"], {"image": image[None]})[0]
    theirs = ort.InferenceSession(wrapped.SerializeToString()).run(None, {"images": given})[0]
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_efficiency_is_the_rate_over_the_work_bound_of_the_same_round(capsys: pytest.CaptureFixture[str]) -> None:
    efficiency.main(str(CLIP), rounds=2, bundle=["builtin:spatialnet-s"])
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    ratios = record["fp32 on onnxruntime"]
    assert len(ratios) == 2
    assert all(0.2 < ratio < 1.1 for ratio in ratios)
