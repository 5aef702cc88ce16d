"""Degraded views, pictures without land, and the output `known`."""

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from conftest import SIDE, TINY, clip_frames
from spatialnet_edge import load
from spatialnet_edge.core.bands import present_groups
from spatialnet_edge.core.frames import preprocess
from spatialnet_edge.core.spec import InputSpec, Known
from spatialnet_optimize.export.graph import check_parity, export_onnx, reference
from spatialnet_training.data.all_bands import in_all_bands
from spatialnet_training.data.bands import groups_named
from spatialnet_training.data.degradation import STEPS, degrade
from spatialnet_training.data.measured_sets import MEASURED
from spatialnet_training.data.not_land import KINDS, generated
from spatialnet_training.losses.multitask import UNLABELLED
from spatialnet_training.networks.checkpoint import load_network, save_network
from spatialnet_training.networks.known import KnownHead
from spatialnet_training.networks.model import SpatialNet
from spatialnet_training.studies import abstention, known_pictures
from spatialnet_training.studies.known import (
    FILES,
    choose_threshold,
    emphasised,
    extract,
    fit,
    scores_of,
    without_too_poor,
)
from spatialnet_training.studies.known_pictures import Pictures, balanced, gather
from training_fixtures import write_set

PICTURE = clip_frames(1)[0][:96, :96]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_each_degradation_keeps_the_shape_and_is_the_same_for_the_same_seed(step) -> None:
    made = step(PICTURE, np.random.default_rng(5))
    assert made.shape == PICTURE.shape
    assert made.dtype == np.uint8
    assert (made != PICTURE).any()
    np.testing.assert_array_equal(made, step(PICTURE, np.random.default_rng(5)))


def test_a_degraded_picture_can_become_a_tensor() -> None:
    for seed in range(20):
        assert torch.from_numpy(degrade(PICTURE, np.random.default_rng(seed))).shape == (96, 96, 3)


def test_pictures_without_land_are_of_every_kind_and_the_same_for_the_same_seed() -> None:
    made = generated(2, 64, 7, [PICTURE])
    assert [kind for kind, _ in made] == [kind for kind in (*KINDS, "defocused") for _ in range(2)]
    again, other = generated(2, 64, 7, [PICTURE]), generated(2, 64, 8, [PICTURE])
    assert all((a == b).all() for (_, a), (_, b) in zip(made, again, strict=True))
    assert all((a != b).any() for (_, a), (_, b) in zip(made, other, strict=True))
    by_kind = dict(made)
    assert by_kind["black"].mean() < 40 < 180 < by_kind["saturated"].mean()


def no_land_use(count: int) -> np.ndarray:
    return np.full(count, UNLABELLED, np.int64)


def network(known: bool) -> SpatialNet:
    torch.manual_seed(3)
    return SpatialNet("student-1m", {head.name: head.width for head in TINY.heads}, SIDE, known=8 if known else 0).eval()


def test_the_exported_graph_has_known_and_the_other_outputs_do_not_change(tmp_path) -> None:
    knowing, plain = network(known=True), network(known=False)
    plain.load_state_dict({name: value for name, value in knowing.state_dict().items() if not name.startswith("known.")})
    spec = replace(TINY, known=Known(threshold=0.5))
    images = np.stack([clip_frames(8)[i][: 4 * SIDE : 4, : 4 * SIDE : 4] for i in range(8)])
    expected = reference(knowing, spec, images)
    assert expected["known"].shape == (8, 1)
    assert check_parity(export_onnx(knowing, spec), spec, expected, images) < 1e-4
    before = reference(plain, TINY, images)
    assert all((before[name] == expected[name]).all() for name in before)
    save_network(tmp_path / "run", knowing, "student-1m", spec, provenance())
    read, read_spec, _ = load_network(tmp_path / "run")
    assert read_spec.known == spec.known
    np.testing.assert_array_equal(reference(read, read_spec, images)["known"], expected["known"])


def provenance():
    from spatialnet_edge.bundle.manifest import Provenance

    return Provenance(created="2026-01-01T00:00:00+00:00", tool="tests", source="tests")


def test_the_head_learns_to_separate_features() -> None:
    generator = torch.Generator().manual_seed(0)
    found = torch.randn(600, 7 * 8, generator=generator)
    known = np.arange(600) < 300
    found[300:] += 1.5
    names = ["eurosat"] * 300 + ["cloud"] * 300
    pictures = Pictures([], names, names, known.astype(np.float32), np.full(600, 1 / 300, np.float32), no_land_use(600))
    torch.manual_seed(0)
    head = KnownHead(4, 8, 16)
    fit(head, found, pictures, 0)
    scores = scores_of(head, found)
    assert scores[:300].mean() > 0.9 > 0.1 > scores[300:].mean()


def test_no_data_set_exceeds_the_allowed_rejections() -> None:
    rng = np.random.default_rng(0)
    groups = [name for name in FILES for _ in range(100)]
    scores = rng.uniform(0.2, 1, len(groups)).astype(np.float32)
    threshold = choose_threshold(scores, groups)
    refused = [(scores[[group == name for group in groups]] < threshold).mean() for name in FILES]
    assert max(refused) == pytest.approx(0.03)
    assert choose_threshold(scores, groups, ("flood",)) == threshold  # a set of which nothing is held out


def test_rejected_classes_get_more_weight_and_the_sum_is_kept() -> None:
    names = ["a"] * 100 + ["cloud"] * 20
    classes = ["a sea"] * 10 + ["a town"] * 90 + ["cloud"] * 20
    pictures = Pictures([], names, classes, np.float32([1] * 100 + [0] * 20), np.full(120, 0.01, np.float32), no_land_use(120))
    scores = np.float32([0.1] * 3 + [0.9] * 97 + [0.2] * 20)
    weights = emphasised(pictures, scores).weights
    assert weights[0] > 2 * weights[50]
    assert weights[:100].sum() == pytest.approx(1.0)
    assert weights[100:] == pytest.approx(0.01)


def test_rows_of_every_class_in_turn() -> None:
    assert balanced([0, 0, 0, 1, 2, 2], 4) == [0, 3, 4, 1]


def test_a_poor_picture_that_is_answered_wrongly_is_not_known_and_one_answered_rightly_is() -> None:
    groups = ["a", "a degraded", "a corrupted", "a degraded", "cloud", "cloud degraded"]
    known = np.float32([1, 1, 1, 1, 0, 0])
    land_use = np.array([2, 2, 2, 2, UNLABELLED, UNLABELLED])
    pictures = Pictures([], groups, groups, known, np.full(6, 0.1, np.float32), land_use)
    taught = without_too_poor(pictures, np.array([0, 2, 0, 2, 2, 1]))
    assert taught.known.tolist() == [1, 1, 0, 1, 0, 0]  # the first is as it is: it is known, though the answer is wrong
    assert taught.weights[taught.known > 0].sum() == pytest.approx(1)
    assert taught.weights[taught.known == 0].sum() == pytest.approx(1)


def test_ordinary_pictures_are_gathered_unmodified_degraded_and_corrupted(published_root, monkeypatch) -> None:
    monkeypatch.setattr(known_pictures, "PER_KIND", 1)
    found = gather(published_root, "train", 64, 0)
    ordinary = found.land_use != UNLABELLED
    assert ordinary.sum() == 3 * 6 * (3 * 4 + 2)  # views, images of a class, classes with a land use
    assert (found.known > 0).tolist() == ordinary.tolist()
    assert found.unmodified[ordinary].sum() == 6 * (3 * 4 + 2)
    assert {"aid", "aid degraded", "aid corrupted", "space", "space degraded"} <= set(found.groups)
    assert found.weights[ordinary].sum() == pytest.approx(1, abs=1e-3)
    again = gather(published_root, "train", 64, 0)
    assert all((a == b).all() for a, b in zip(found.images, again.images, strict=True))


def test_a_colour_picture_is_an_input_of_more_bands() -> None:
    groups = groups_named(("sar", "rgb", "nir", "swir"))
    given = InputSpec(height=96, width=96, groups=groups)
    without = preprocess(PICTURE, given)
    assert present_groups(without[None], groups).tolist() == [[0, 1, 0, 0]]
    np.testing.assert_array_equal(without[..., 2:5], PICTURE)
    np.testing.assert_array_equal(preprocess(without, given), without)
    made = in_all_bands(PICTURE, groups, np.random.default_rng(0))
    assert present_groups(made[None], groups).tolist() == [[0, 1, 1, 1]]
    assert made[..., 5].mean() == pytest.approx(PICTURE.mean(), rel=0.15)


def test_a_network_of_measured_bands_is_taught_by_measured_images_too(published_root, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(known_pictures, "PER_KIND", 1)
    root = tmp_path / "root"
    root.mkdir()
    for file in published_root.iterdir():
        (root / file.name).symlink_to(file)
    write_set(tmp_path, "flood", {"Land": -800, "Water": -2200}, 2).rename(root / MEASURED["flood"].file)
    groups = groups_named(("rgb", "sar"))
    found = gather(root, "train", 64, 0, groups, ("flood",))
    assert {"flood", "space", "space in all bands"} <= set(found.groups)
    assert "flood degraded" not in found.groups
    of_flood = [row for row, group in enumerate(found.groups) if group == "flood"]
    assert found.known[of_flood].all()
    assert {found.images[row].shape[2] for row in of_flood} == {5}
    torch.manual_seed(0)
    several = SpatialNet("student-1m", {"land_use": 3, "flood": 3}, SIDE, groups, known=8).eval()
    features, answers = extract(several, found.images[-40:], SIDE, groups)
    assert features.shape[0] == len(answers) == 40


def test_the_table_of_abstention_has_a_row_for_each_kind_of_picture(published_root, monkeypatch, capsys) -> None:
    monkeypatch.setattr(abstention, "EVERYDAY", ())
    monkeypatch.setattr(abstention, "CROPS_PER_PICTURE", 1)
    abstention.abstention("builtin:spatialnet-s", published_root, per_set=2)
    rows = {line.split("│")[1].strip(): line for line in capsys.readouterr().out.splitlines() if line.count("│") == 5}
    assert {"eurosat", "eurosat, JPEG 75", "everyday", "everyday, 128 px crops"} <= set(rows)
    assert rows["everyday"].split("│")[2].strip() == "2"


def test_flat_pictures_count_as_withheld() -> None:
    with load("builtin:spatialnet-s") as model:
        assert abstention.shares(model, [np.zeros((64, 64, 3), np.uint8)] * 2) == (1.0, 0.0)
