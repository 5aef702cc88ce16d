"""Confidence that falls on poor pictures: the temperature of each image, and heads calibrated with it."""

from pathlib import Path

import numpy as np
import torch
from msgspec.structs import replace
from typer.testing import CliRunner

from conftest import SIDE, TINY, clip_frames
from spatialnet_edge.bundle.manifest import Provenance
from spatialnet_edge.cli.app import app
from spatialnet_edge.core.spec import Known, Multiclass
from spatialnet_optimize.export.graph import check_parity, export_onnx, reference
from spatialnet_training.data.corruptions import SEVERITIES
from spatialnet_training.networks.checkpoint import load_network, save_network
from spatialnet_training.networks.model import SpatialNet
from spatialnet_training.networks.transfer import transfer
from spatialnet_training.studies.poor_calibration import LEAST_RIGHT, SCARCE, confident, recalibrated
from spatialnet_training.studies.poor_views import AS_IT_IS, DEGRADED, Views, held_out, observe, views_of

HEAD = Multiclass(name="shade", labels=("dark", "bright"))
SPEC = replace(TINY, heads=(HEAD,))


def network(image_temperature: bool) -> SpatialNet:
    torch.manual_seed(3)
    outputs = {head.name: head.width for head in TINY.heads}
    return SpatialNet("student-1m", outputs, SIDE, known=8, image_temperature=image_temperature).eval()


def overconfident(images: int = 600) -> Views:
    """A head that is always sure, and of corrupted views wrong as often as their severity says; a feature tells the severity."""
    rng = np.random.default_rng(0)
    severities = (AS_IT_IS, DEGRADED, *SEVERITIES)
    severity = np.tile(severities, images)
    image = np.repeat(np.arange(images), len(severities))
    poor = np.where(severity == DEGRADED, 1, severity)
    target = rng.integers(0, 2, len(severity))
    wrong = rng.random(len(severity)) < np.array([0.01, 0.2, 0.2, 0.35, 0.35, 0.5])[poor]
    answers = np.where(wrong, 1 - target, target)
    logits = np.where(answers[:, None] == np.arange(2), 4.0, 0.0) + rng.normal(0, 0.5, (len(severity), 2))
    found = np.column_stack([poor + rng.normal(0, 0.3, len(poor)), rng.normal(0, 1, (len(poor), 3))])
    return Views(
        torch.tensor(found, dtype=torch.float32),
        {"shade": torch.tensor(logits, dtype=torch.float32)},
        {"shade": torch.tensor(target)},
        torch.tensor(severity),
        torch.tensor(image),
        torch.ones(len(severity), dtype=torch.bool),
    )


def test_confident_answers_are_right_at_every_severity_and_sharp_images_keep_confident_ones() -> None:
    views = overconfident()
    before = confident(HEAD, views, torch.ones(len(views.found), 1))
    assert before[5].right is not None
    assert before[5].right < 0.6
    made, spec, of_image = recalibrated(SPEC, views)
    for found in (confident(spec.heads[0], views, of_image), confident(spec.heads[0], views, made(views.found))):
        assert all(
            each.count < SCARCE or (each.right or 0) >= LEAST_RIGHT - 0.01
            for level, each in found.items()
            if level != DEGRADED
        )
        assert found[AS_IT_IS].share > 0.7
        assert found[5].share < 0.1
    assert made(torch.zeros(1, 4)) < made(torch.tensor([[5.0, 0, 0, 0]]))


def test_a_view_is_judged_by_what_other_images_taught() -> None:
    views = overconfident(60)
    _, _, of_image = recalibrated(SPEC, views)
    changed = Views(
        views.found,
        views.logits,
        {"shade": torch.where(views.image % 2 == 0, 1 - views.targets["shade"], views.targets["shade"])},
        views.severity,
        views.image,
        views.answered,
    )
    _, _, other = recalibrated(SPEC, changed)
    even = views.image % 2 == 0
    torch.testing.assert_close(of_image[even], other[even])
    assert not torch.allclose(of_image[~even], other[~even])


def test_the_graph_divides_by_the_temperature_of_the_image_and_keeps_the_label(tmp_path: Path) -> None:
    plain, tempered = network(False), network(True)
    assert tempered.image_temperature is not None
    tempered.load_state_dict(plain.state_dict(), strict=False)
    tempered.image_temperature.layer.bias.data.fill_(3.0)
    spec = replace(TINY, known=Known(threshold=0.5))
    images = np.stack([clip_frames(8)[i][: 4 * SIDE : 4, : 4 * SIDE : 4] for i in range(8)])
    before, after = reference(plain, spec, images), reference(tempered, spec, images)
    assert (before["shade"].argmax(1) == after["shade"].argmax(1)).all()
    assert ((before["bands"] > 0.5) == (after["bands"] > 0.5)).all()
    assert (before["shade"].max(1) > after["shade"].max(1)).all()
    np.testing.assert_array_equal(before["level"], after["level"])
    np.testing.assert_array_equal(before["known"], after["known"])
    assert check_parity(export_onnx(tempered, spec), spec, after, images) < 1e-4
    save_network(
        tmp_path / "run", tempered, "student-1m", spec, Provenance(created="2026-01-01T00:00:00+00:00", tool="", source="")
    )
    learner = network(False)
    transfer(learner, TINY.heads, tmp_path / "run")
    assert (learner.state_dict()["backbone.positions"] == tempered.state_dict()["backbone.positions"]).all()
    read, read_spec, _ = load_network(tmp_path / "run")
    np.testing.assert_array_equal(reference(read, read_spec, images)["shade"], after["shade"])


def test_views_are_the_image_a_degraded_one_and_one_of_each_severity_the_same_for_a_seed() -> None:
    picture = clip_frames(1)[0][:96, :96]
    made, again = views_of(picture, 7), views_of(picture, 7)
    assert [severity for severity, _ in made] == [AS_IT_IS, DEGRADED, *SEVERITIES]
    assert (made[0][1] == picture).all()
    assert all((view != picture).any() for _, view in made[1:])
    assert all((a == b).all() for (_, a), (_, b) in zip(made, again, strict=True))


def test_refused_views_are_not_judged(published_root: Path) -> None:
    learner, spec, _ = load_network(shipped())
    samples = held_out(spec, published_root)
    assert len(samples) == 28  # two of each class; not the clouds, which have no land use
    views = observe(learner, replace(spec, known=Known(threshold=1.0)), samples.subset([0, 1]), 0)
    assert len(views.found) == 2 * 5
    assert not views.answered.any()
    assert confident(spec.heads[0], views, torch.ones(10, 1))[AS_IT_IS].count == 0


def shipped() -> Path:
    from spatialnet_training.networks.checkpoint_paths import located

    return located("spatialnet-s")


def test_the_command_writes_a_checkpoint_with_the_same_labels(published_root: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["recalibrate", "spatialnet-s", "--data-root", str(published_root), "-o", str(tmp_path / "new")]
    )
    assert done.exit_code == 0, done.output
    assert "held-out training images" in done.output
    old, old_spec, _ = load_network(shipped())
    new, spec, provenance = load_network(tmp_path / "new")
    assert new.image_temperature is not None
    assert spec.known == old_spec.known
    assert spec.head("land_use").gsd == (round(51.2 / 96, 3), round(7680 / 96, 3))
    assert spec.head("land_use_eurosat").gsd == (round(640 / 96, 3), round(640 / 96, 3))
    assert spec.head("land_use_rsscn7").gsd is None
    assert "recalibrate" in provenance.command
    images = np.stack([clip_frames(4)[i][:96, :96] for i in range(4)])
    before, after = reference(old, old_spec, images), reference(new, spec, images)
    assert (before["land_use"].argmax(1) == after["land_use"].argmax(1)).all()
    np.testing.assert_array_equal(before["known"], after["known"])


def test_missing_data_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["recalibrate", "spatialnet-s", "--data-root", str(tmp_path), "-o", str(tmp_path / "new")])
    assert done.exit_code != 0
    assert "eurosat_rgb.zip" in str(done.exception)
