"""The linear head on frozen features, the choice between it and fine-tuning, and runs that stop on the way."""

import dataclasses
import logging
import math
import re
import resource
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from typer.testing import CliRunner

from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.cli.app import app
from spatialnet_edge.core.errors import BundleError, RunError, UsageError
from spatialnet_edge.core.spec import RGB, InputSpec, ModelSpec
from spatialnet_training.cli.configs import read_config
from spatialnet_training.config import TrainConfig, TrainingStage
from spatialnet_training.data.custom_dataset import load_own
from spatialnet_training.data.datasets import TrainingData
from spatialnet_training.data.samples import Samples
from spatialnet_training.loop import linear_head
from spatialnet_training.loop.best_epoch import BestEpoch, Candidate
from spatialnet_training.loop.experiment_trackers import open_trackers
from spatialnet_training.loop.linear_head import (
    FOLDS,
    Features,
    LinearFit,
    extract,
    fit_linear_heads,
    folds_of,
    solve,
    strongest_within_error,
    views_of,
)
from spatialnet_training.loop.prediction import predict
from spatialnet_training.loop.selection import Selection, should_fine_tune, training_images_seem_known
from spatialnet_training.loop.trainer import Trainer
from spatialnet_training.loop.training_run import train
from spatialnet_training.loop.verdict import Verdict, doubtful, usual_probabilities
from spatialnet_training.loop.watcher import Watcher
from spatialnet_training.losses.class_balance import balanced_cross_entropy, draw_balanced, log_shares
from spatialnet_training.networks.checkpoint import load_network
from spatialnet_training.networks.checkpoint_file import load_checkpoint, save_checkpoint
from spatialnet_training.networks.model import SpatialNet
from spatialnet_training.networks.timm_backbone import import_timm
from spatialnet_training.plots import drawable, read_log
from training_fixtures import TINY_RUN, own_images

OWN = replace(
    TINY_RUN,
    data={},
    stages=(TrainingStage(size=32, epochs=2),),
    linear_head=True,
    keep_best=True,
    ema_decay=0.8,
    mixup_share=0.0,
)


class Recorder(Watcher):
    """Records the progress of a run."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.notes: list[str] = []
        self.selection: Selection | None = None
        self.verdict: Verdict | None = None

    def epoch(self, figures: dict[str, float]) -> None:
        self.rows.append(figures)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def finished(self, selection: Selection | None, verdict: Verdict) -> None:
        self.selection, self.verdict = selection, verdict


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    return load_own(own_images(tmp_path_factory.mktemp("own"), broken=False), 64)


def test_the_solution_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 6)) * [1, 5, 0.2, 1, 1, 1] + 3
    y = rng.integers(0, 3, 90)
    x[:, 0] += y
    weight, bias = solve(torch.from_numpy(x), torch.from_numpy(y), 90, 0.3, 3)
    scale = x.std(axis=0, ddof=1)
    peer = LogisticRegression(C=0.3, tol=1e-8, max_iter=1000).fit((x - x.mean(axis=0)) / scale, y)
    own = torch.from_numpy(x) @ weight.T + bias
    np.testing.assert_allclose(own.softmax(1).numpy(), peer.predict_proba((x - x.mean(axis=0)) / scale), atol=2e-3)


def test_folds_hold_whole_groups_and_some_of_each_class() -> None:
    target = torch.tensor([0] * 30 + [1] * 20)
    groups = [f"{index // 2}" for index in range(50)]
    folds = folds_of(target, np.arange(50), groups)
    for group in set(groups):
        assert len({int(folds[row]) for row in range(50) if groups[row] == group}) == 1
    for fold in range(FOLDS):
        assert {int(target[row]) for row in np.flatnonzero(folds == fold)} == {0, 1}


def test_a_linear_head_replaces_the_networks_own_and_leaves_the_backbone(data: TrainingData) -> None:
    torch.manual_seed(0)
    network = SpatialNet("student-1m", {"land_use": 2}, 32)
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    fit = fit_linear_heads(network, data.train, InputSpec(height=32, width=32, groups=(RGB,)), "all", data.groups_of_training)
    assert all(torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items())
    answers = predict(network, data.holdout, 32)["land_use"].argmax(1).numpy()
    assert (answers == data.holdout.targets["land_use"]).mean() >= 0.9  # even random features separate water and forest
    assert fit.accuracies["land_use"] > 0.9


def test_a_final_linear_head_is_fitted_to_the_held_out_images_too(data: TrainingData) -> None:
    torch.manual_seed(0)
    network, spec = SpatialNet("student-1m", {"land_use": 2}, 32), InputSpec(height=32, width=32, groups=(RGB,))
    mislabelled = dataclasses.replace(data.holdout, targets={"land_use": 1 - data.holdout.targets["land_use"]})
    groups = data.groups_of_training, data.groups_of_holdout
    fit = fit_linear_heads(network, data.train, spec, "all", groups[0], heldout=mislabelled, groups_of_heldout=groups[1])
    without = predict(network, data.train, 32)["land_use"].softmax(1)
    fit.use_all_images(network)
    contradicted = predict(network, data.train, 32)["land_use"].softmax(1)
    truth = torch.from_numpy(data.train.targets["land_use"])[:, None]
    assert without.gather(1, truth).mean() > contradicted.gather(1, truth).mean()


def test_a_wrong_label_is_found_by_a_head_that_was_not_fitted_to_it(data: TrainingData) -> None:
    torch.manual_seed(0)
    network, spec = SpatialNet("student-1m", {"land_use": 2}, 32), InputSpec(height=32, width=32, groups=(RGB,))
    labels = data.train.targets["land_use"].copy()
    wrong = [int(np.flatnonzero(labels == label)[0]) for label in (0, 1)]
    labels[wrong] = 1 - labels[wrong]
    of_holdout = data.holdout.targets["land_use"].copy()
    of_holdout[0] = 1 - of_holdout[0]
    train, holdout = (
        dataclasses.replace(samples, targets={"land_use": each})
        for samples, each in ((data.train, labels), (data.holdout, of_holdout))
    )
    mixed_up = dataclasses.replace(data, train=train, holdout=holdout)
    groups = data.groups_of_training, data.groups_of_holdout
    given = ModelSpec(name="test", input=spec, heads=data.heads)
    for heldout in (None, holdout):
        fit = fit_linear_heads(network, train, spec, "all", groups[0], heldout=heldout, groups_of_heldout=groups[1])
        found = {each.name for each in doubtful(given, mixed_up, fit.out_of_fold)}
        expected = {data.train.names[row] for row in wrong} | ({data.holdout.names[0]} if heldout else set())
        assert expected <= found
        assert len(found) < 8


def test_a_class_is_as_probable_as_usual() -> None:
    probabilities = torch.tensor([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.2, 0.8, 0.0], [0.0, 0.0, 1.0]])
    truth = torch.tensor([0, 0, 1, -1])
    torch.testing.assert_close(usual_probabilities(probabilities, truth), torch.tensor([0.7, 0.8, 1.0]))


def test_the_final_head_is_regularised_more_if_held_out_labels_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was fitted to them with the weak regularisation that clean training images had asked for. Of 84 images of RSSCN7 with two
    labels exchanged, this cost 5 points on `val`."""
    chance = np.random.default_rng(0)
    centres = chance.normal(size=(4, 128))

    def drawn(images: int) -> Samples:
        """Features of four classes, as images of float64 `[1, 1, 128]`."""
        labels = np.arange(images) % 4
        values = chance.normal(size=(images, 128)) + centres[labels]
        return Samples([*values[:, None, None]], {"a": labels}, np.zeros(images, np.int64), ("x",))

    def matrix(samples: Samples) -> Tensor:
        return torch.from_numpy(np.stack(samples.images)).reshape(-1, 128)

    def features(network: SpatialNet, samples: Samples, *rest: object) -> Features:
        return Features(matrix(samples)[None, :, None], torch.zeros(1, 128))

    monkeypatch.setattr(linear_head, "extract", features)
    train, heldout = drawn(32), drawn(12)
    heldout.targets["a"][:4] = (heldout.targets["a"][:4] + 1) % 4
    network, spec = SpatialNet("student-1m", {"a": 4}, 32), InputSpec(height=32, width=32, groups=(RGB,))
    names = [str(index) for index in range(44)]
    fit = fit_linear_heads(network, train, spec, "none", names[:32], heldout=heldout, groups_of_heldout=names[32:])

    y = torch.from_numpy(np.concatenate([train.targets["a"], heldout.targets["a"]]))
    as_before = solve(torch.cat([matrix(train), matrix(heldout)]), y, 44, fit.strengths["a"], 4)
    assert fit.on_all["a"][0].norm() < 0.5 * as_before[0].norm()


def test_the_strongest_regularisation_within_one_standard_error_is_chosen() -> None:
    target = torch.tensor([0, 1] * 8)
    right = torch.tensor([[4.0, 0.0], [0.0, 4.0]] * 8, dtype=torch.float64)
    spread = right * torch.linspace(0.2, 1.8, 16, dtype=torch.float64)[:, None]  # some are less sure: the error is not zero
    assert strongest_within_error([0 * spread, 0.95 * spread, spread], target) == 1
    assert strongest_within_error([0 * spread, 0.3 * spread, spread], target) == 2
    assert strongest_within_error([spread, spread, spread], target) == 0


def test_features_are_also_seen_larger_where_the_backbone_takes_any_size(data: TrainingData) -> None:
    torch.manual_seed(0)
    network, spec = SpatialNet("student-1m", {"land_use": 2}, 32), InputSpec(height=32, width=32, groups=(RGB,))
    some = data.train.subset(range(6))
    views = views_of(network, some, spec)
    assert [view.height for view in views] == [32, 48]
    features = extract(network, some, views, (0, 5), torch.zeros(1, 128))
    assert features.values.shape == (4, 6, 1, 128)
    upright = extract(network, some, [spec], (0,), torch.zeros(1, 128))
    torch.testing.assert_close(features.values[0], upright.values[0])
    assert not torch.allclose(features.values[2], features.values[0])
    network.backbone.any_size = False
    assert views_of(network, some, spec) == [spec]
    fixed = SpatialNet("timm:vit_tiny_patch16_224", {"land_use": 2}, 32)
    assert views_of(fixed, some, spec) == [spec]


def test_fine_tuning_is_left_out_where_the_held_out_loss_leaves_no_room() -> None:
    """Cross-validation is too good where the start was trained on these images, so it decides nothing."""
    config, fit = replace(OWN, fine_tune="auto"), LinearFit({}, {"a": 0.99}, 1.0)
    assert should_fine_tune(config, fit, 0.1)[0] is False
    assert should_fine_tune(config, fit, 0.4)[0] is True
    assert should_fine_tune(replace(config, fine_tune="always"), fit, 0.1)[0] is True
    assert should_fine_tune(replace(config, fine_tune="never"), fit, 0.4)[0] is False


def test_a_start_that_seems_to_know_the_training_images_is_said() -> None:
    fit = LinearFit({}, {"a": 0.99, "b": 0.9}, 1.0)
    said = training_images_seem_known(fit, {"val/a": 0.9, "val/b": 0.9})
    assert said is not None
    assert said.startswith("a: 99.0% of training images when cross-validated, 90.0% of validation images")
    assert training_images_seem_known(fit, {"val/a": 0.98}) is None
    assert training_images_seem_known(fit, {"holdout/a": 0.5}) is None


def test_the_better_of_the_linear_head_and_fine_tuning_is_kept_and_the_table_says_why(
    data: TrainingData, tmp_path: Path
) -> None:
    """With a ruinous learning rate, the linear head must be kept."""
    recorder = Recorder()
    ruined = train(replace(OWN, learning_rate=0.3, warmup_share=0.0), data, tmp_path / "ruined", "test", recorder)
    assert [row["epoch"] for row in recorder.rows] == [0, 1, 2]
    assert recorder.selection is not None
    assert [option.chosen for option in recorder.selection.options] == [True, False]
    assert "linear head on frozen features has the lower loss" in recorder.selection.reason
    linear = train(replace(OWN, fine_tune="never"), data, tmp_path / "linear", "test")
    kept, alone = (load_network(path)[0].state_dict() for path in (ruined, linear))
    changed = [name for name in kept if not torch.equal(kept[name], alone[name])]
    assert changed == ["heads.land_use.weight", "heads.land_use.bias"]  # fitted to the held-out images too
    assert [row["epoch"] for row in read_log(tmp_path / "linear" / "log.csv")] == [0]
    page = (tmp_path / "linear" / "card.html").read_text()
    assert "fine-tuning was skipped" in page
    assert "18 validation images" in page


def test_validation_images_are_reported_but_not_used_for_selection(data: TrainingData, tmp_path: Path) -> None:
    recorder = Recorder()
    train(OWN, data, tmp_path, "test", recorder)
    assert all("val/land_use" in row and "holdout_loss" in row for row in recorder.rows)
    assert recorder.selection is not None
    assert recorder.verdict is not None
    chosen = next(option for option in recorder.selection.options if option.chosen)
    assert chosen.loss == min(row["holdout_loss"] for row in recorder.rows)
    assert recorder.verdict.judged_by == "validation"
    assert recorder.verdict.heads[0].images == 18


def test_a_run_without_improvement_stops(data: TrainingData, tmp_path: Path) -> None:
    recorder = Recorder()
    stages = (TrainingStage(size=32, epochs=9),)
    train(replace(OWN, stages=stages, learning_rate=0.3, warmup_share=0.0, patience=2), data, tmp_path, "test", recorder)
    assert recorder.rows[-1]["epoch"] == 2
    assert any("no lower held-out loss in 2 epochs" in note for note in recorder.notes)


def test_a_run_with_a_linear_head_resumes(data: TrainingData, tmp_path: Path) -> None:
    class Interrupt(Recorder):
        def epoch(self, figures: dict[str, float]) -> None:
            if figures["epoch"] == 1:
                raise KeyboardInterrupt

    whole = train(OWN, data, tmp_path / "whole", "test")
    with pytest.raises(KeyboardInterrupt):
        train(OWN, data, tmp_path / "parts", "test", Interrupt())
    parts = train(OWN, data, tmp_path / "parts", "test")
    for one, other in zip(*(load_network(path)[0].state_dict().values() for path in (whole, parts)), strict=True):
        assert torch.equal(one, other)
    assert [row["epoch"] for row in read_log(tmp_path / "parts" / "log.csv")] == [0, 1, 2]


def test_after_a_damaged_checkpoint_the_previous_one_is_used(data: TrainingData, tmp_path: Path) -> None:
    whole = train(OWN, data, tmp_path, "test").read_bytes()
    last = tmp_path / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    seen = Recorder()
    train(OWN, data, tmp_path, "test", seen)
    assert "resumed after epoch 1; last.ckpt is damaged, so the checkpoint before it is used" in seen.notes
    assert [row["epoch"] for row in read_log(tmp_path / "log.csv")] == [0, 1, 2]
    assert len((tmp_path / "model.safetensors").read_bytes()) == len(whole)
    for name in ("last.ckpt", "previous.ckpt"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(RunError, match="damaged, and no earlier checkpoint can be read; remove it"):
        train(OWN, data, tmp_path, "test")


def test_a_run_that_diverges_says_where_and_keeps_its_checkpoint(data: TrainingData) -> None:
    torch.manual_seed(0)
    config = replace(OWN, learning_rate=1e20, warmup_share=0.0, linear_head=False)
    trainer = Trainer(config, SpatialNet(config.backbone, {"land_use": 2}, 32), data.train)
    with pytest.raises(RunError, match=r"diverged: .* at step \d of epoch 1, at a learning rate .* 1e\+20; .*--lr 1e\+19"):
        trainer.train_epoch()


def test_a_full_disk_leaves_the_old_checkpoint_and_no_half_one(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk; the operating system's words are told, not those of torch."""
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"epoch": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(RunError, match=r"cannot be written: .*File too large; free some space"):
            save_checkpoint(path, {"epoch": 2, "weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_checkpoint(path) == {"epoch": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_checkpoint_that_is_interrupted_leaves_no_half_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(state: object, file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    save_checkpoint(tmp_path / "last.ckpt", {"epoch": 1})
    monkeypatch.setattr(torch, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "last.ckpt", {"epoch": 2})
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_best_epoch_survives_and_only_a_lower_loss_replaces_it(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    best = BestEpoch(tmp_path / "best.ckpt")
    assert best.offer(Candidate(0, 0.5), network)
    assert not best.offer(Candidate(1, 0.5), network)
    assert not best.offer(Candidate(2, math.inf), network)
    assert BestEpoch(tmp_path / "best.ckpt").best == Candidate(0, 0.5)
    assert BestEpoch(tmp_path / "best.ckpt", fresh=True).best is None


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("epochs=3", "no setting 'epochs'; it belongs to a stage: .* or --epochs"),
        ("lerning_rate=1", "no setting 'lerning_rate'; similar ones are learning_rate"),
        ("batch=4000", "batch is 4000 and epoch_images 1000"),
        ("seed=-1", "seed"),
    ],
)
def test_an_unknown_setting_is_reported_with_the_known_ones(tmp_path: Path, setting: str, says: str) -> None:
    result = CliRunner().invoke(app, ["train", "--data", str(tmp_path), "--output", str(tmp_path / "run"), "--set", setting])
    assert result.exit_code != 0
    assert re.search(says, str(result.exception))


def test_plain_options_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TrainConfig] = []

    def stop(config: TrainConfig, *_: object) -> None:
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("spatialnet_training.cli.train.run_training", stop)
    options = ["--epochs", "3", "--batch", "8", "--size", "64", "--lr", "0.001", "--seed", "7", "--flips", "none"]
    folder = own_images(tmp_path, broken=False)
    result = CliRunner().invoke(app, ["train", "--data", str(folder), "--output", str(tmp_path / "run"), *options])
    (config,) = seen
    assert (config.epochs, config.batch, config.size, config.seed, config.flips) == (3, 8, 64, 7, "none")
    assert config.learning_rate == 0.001
    assert result.exit_code == 130
    assert "To start again" in " ".join(result.output.split())


def test_labels_without_a_font_are_drawn_as_their_number() -> None:
    assert drawable("forest", 3) == "forest"
    assert drawable("\U000f0000", 3) == "class 3"


def test_the_default_starts_from_the_larger_student() -> None:
    assert read_config("folder").size > read_config("folder-s").size
    assert read_config("folder").linear_head


def test_classes_are_drawn_equally_often() -> None:
    target = np.array([0] * 90 + [1] * 9 + [-1] * 11)
    drawn = target[draw_balanced(target, 400, np.random.default_rng(0))]
    counts = np.bincount(drawn + 1)
    assert counts.sum() == 400
    assert counts[0] == pytest.approx(40, abs=3)
    assert counts[1] == pytest.approx(counts[2], abs=3)


def test_a_rare_class_is_found_when_the_logits_are_adjusted() -> None:
    """Two overlapping classes, one of them ten times as common: without adjustment the rare one is mostly missed."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(np.concatenate([rng.normal(0, 1, (300, 2)), rng.normal(1, 1, (30, 2))]))
    y = torch.tensor([0] * 300 + [1] * 30)
    recall = []
    for shares in (None, log_shares(y, 2)):
        weight, bias = solve(x, y, len(y), 1.0, 2, shares=shares)
        recall.append(float(((x @ weight.T + bias).argmax(1)[300:] == 1).double().mean()))
    assert recall[0] < 0.4 < 0.6 < recall[1]


def test_balance_is_chosen_by_the_loss_over_the_classes(data: TrainingData, tmp_path: Path) -> None:
    rare = [row for row, kind in enumerate(data.train.targets["land_use"]) if kind == 0 or row % 12 == 0]
    uneven = dataclasses.replace(data, train=data.train.subset(rare))
    network = SpatialNet("student-1m", {"land_use": 2}, 32)
    spec = InputSpec(height=32, width=32, groups=(RGB,))
    fit = fit_linear_heads(network, uneven.train, spec, "none", uneven.groups_of_training, balance="logits")
    assert fit.balanced_heads == ("land_use",)
    recorder = Recorder()
    train(replace(OWN, class_balance="auto"), uneven, tmp_path, "test", recorder)
    kept = load_checkpoint(tmp_path / "best.ckpt")
    assert kept is not None
    assert kept["balanced_heads"] in ([], ["land_use"])
    logits = {"land_use": torch.tensor([[2.0, 0.0]] * 9 + [[1.0, 0.0]])}
    target = torch.tensor([0] * 9 + [1])
    assert balanced_cross_entropy(logits["land_use"], target) == pytest.approx(
        (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))) / 2
    )


@pytest.mark.parametrize(("size", "most"), [(32, 256), (160, 32), (512, 3), (2048, 1)])
def test_answers_are_asked_for_in_batches_of_bounded_memory(size: int, most: int) -> None:
    seen: list[int] = []

    class Counts(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            seen.append(len(x))
            return {"a": x.mean(dim=(2, 3))}

    count = min(most + 2, 258)
    samples = Samples([np.zeros((4, 4, 3), np.uint8)] * count, {"a": np.zeros(count, np.int64)}, np.zeros(count, np.int64), ())
    assert predict(Counts(1, 1), samples, size)["a"].shape == (count, 3)
    assert seen == [most] * (count // most) + ([count % most] if count % most else [])


def test_curves_go_to_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tracker,) = open_trackers(("tensorboard",), tmp_path)
    tracker.epoch({"epoch": 1, "loss": 0.5, "images_per_second": math.nan})
    tracker.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss" in events.read_bytes()
    with pytest.raises(UsageError, match="no such tracker; available: tensorboard, mlflow"):
        open_trackers(("wandb",), tmp_path)


def test_curves_go_to_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tracker,) = open_trackers(("mlflow",), tmp_path / "my-run")
    for epoch in (1, 2):
        tracker.epoch({"epoch": epoch, "loss": 1 / epoch, "images_per_second": math.nan})
    tracker.close()
    client = mlflow.MlflowClient((tmp_path / "my-run" / "mlflow").as_uri())
    (run,) = client.search_runs(["0"])
    assert run.info.run_name == "my-run"
    assert run.info.status == "FINISHED"
    assert [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")] == [(1, 1.0), (2, 0.5)]
    assert "images_per_second" not in run.data.metrics
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "no-such-scheme://store")
    mlflow.set_tracking_uri("no-such-scheme://store")
    with pytest.raises(UsageError, match="MLFLOW_TRACKING_URI names the store"):
        open_trackers(("mlflow",), tmp_path / "other")


def test_a_failed_download_of_weights_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    timm = import_timm()
    real = timm.create_model

    def offline(name: str, **options: object) -> object:
        if options["pretrained"]:
            logging.getLogger("huggingface_hub.utils").warning("Retrying in 1s")
            raise OSError("cannot reach the hub")
        return real(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UsageError, match=r"weights=hub: .*OSError: cannot reach the hub; .*--set weights=FILE"):
        SpatialNet("timm:resnet18", {"a": 2}, 32, weights="hub")
    assert "Retrying" not in caplog.text


def test_a_checkpoint_given_as_a_bundle_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_bytes(b"weights")
    torch.save({"a": torch.zeros(1)}, tmp_path / "network.pt")
    for name in ("run", "network.pt"):
        with pytest.raises(BundleError, match="a training checkpoint; build it first: spatialnet-edge build"):
            open_bundle(tmp_path / name)
