"""Data, loss, loop, calibration: each on real images, small enough for a CPU."""

import csv
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import SAMPLES
from spatialnet_edge.errors import DataRefused, UsageError
from spatialnet_edge.spec import Multiclass, Multilabel
from spatialnet_training.augment import plain, warp
from spatialnet_training.calibration import abstention, fit_temperature
from spatialnet_training.checkpoint import load_student
from spatialnet_training.cli import read_config
from spatialnet_training.config import Stage, TrainConfig
from spatialnet_training.datasets import held_out, load_own, load_published, load_split, task_labels
from spatialnet_training.losses import UNLABELLED, multi_task_loss, task_loss
from spatialnet_training.model import PRESETS, SpatialNetStudent
from spatialnet_training.run import train
from spatialnet_training.taxonomy import OBJECTS, load_taxonomy
from spatialnet_training.trainer import Trainer, draw_epoch, predict

TAXONOMY = load_taxonomy()
torch.set_num_threads(1)  # the same sums in the same order

SOURCES = {"eurosat": SAMPLES / "eurosat.zip", "ucmerced": SAMPLES / "ucmerced.zip"}


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped samples as two data sets with splits: files whose names end in an even number train, the others validate."""
    root = tmp_path_factory.mktemp("data")
    for name, archive in SOURCES.items():
        with zipfile.ZipFile(archive) as source, zipfile.ZipFile(root / f"{name}.zip", "w") as target:
            files = [entry for entry in source.namelist() if entry.endswith(".jpg")]
            for entry in source.namelist():
                # the samples are held-out images by their path; a new path puts them on both sides of that rule
                renamed = entry if entry.endswith(".csv") else entry.replace(".jpg", "_.jpg")
                content = source.read(entry)
                if entry == "objects.csv":
                    content = content.replace(b".jpg", b"_.jpg")
                target.writestr(renamed, content)
            rows = [f"{f.replace('.jpg', '_.jpg')},{'val' if i % 4 == 0 else 'train'}" for i, f in enumerate(files)]
            target.writestr("splits.csv", "path,split\n" + "\n".join(rows) + "\n")
    return root


CONFIG = TrainConfig(
    name="tiny run",
    preset="student-2m",
    data={"eurosat": "eurosat.zip", "ucmerced": "ucmerced.zip"},
    stages=(Stage(size=32, epochs=1), Stage(size=48, epochs=1)),
    epoch_images=48,
    batch=16,
)


def test_the_taxonomy_covers_every_class_with_one_of_twenty_land_uses() -> None:
    assert TAXONOMY.data_sets == ("eurosat", "ucmerced", "rsscn7", "aid")
    assert [len(TAXONOMY.classes(name)) for name in TAXONOMY.data_sets] == [10, 21, 7, 30]
    assert len(TAXONOMY.land_use_labels) == 20
    assert set(TAXONOMY.settlement.values()) == {"rural", "urban"}
    assert TAXONOMY.settlement["aid", "Park"] == "urban"
    assert TAXONOMY.settlement["ucmerced", "golfcourse"] == "rural"


def test_the_taxonomy_matches_the_real_data_sets(shared_data) -> None:
    names = {"eurosat": "eurosat_rgb", "ucmerced": "ucmerced", "rsscn7": "rsscn7", "aid": "aid_multilabel"}
    for data_set, file in names.items():
        with zipfile.ZipFile(shared_data(f"{file}.zip")) as archive:
            folders = {
                entry.split("/")[1] for entry in archive.namelist() if entry.startswith("images/") and entry.count("/") == 2
            }
            assert folders == set(TAXONOMY.classes(data_set))
            if "objects.csv" in archive.namelist():
                header = next(csv.reader(archive.read("objects.csv").decode().splitlines()))
                assert tuple(header[1:]) == OBJECTS


def test_splits_are_disjoint_and_labels_partial(data_root: Path) -> None:
    sources = {name: data_root / f"{name}.zip" for name in SOURCES}
    parts = {split: load_split(sources, TAXONOMY, split, 64) for split in ("train", "tune", "val")}
    assert sum(len(part) for part in parts.values()) == 360
    assert len(parts["tune"]) >= 5
    train_part = parts["train"]
    aerial = train_part.data_set == 1
    assert (train_part.targets["land_use_eurosat"][aerial] == UNLABELLED).all()
    assert (train_part.targets["land_use_eurosat"][~aerial] != UNLABELLED).all()
    assert (train_part.targets["objects"][~aerial] == UNLABELLED).all()
    assert set(np.unique(train_part.targets["objects"][aerial])) == {0, 1}
    assert (train_part.targets["settlement"] != UNLABELLED).all()


def test_the_held_out_rule_is_the_one_that_the_samples_were_made_with() -> None:
    for archive in SOURCES.values():
        with zipfile.ZipFile(archive) as source:
            assert all(held_out(name) for name in source.namelist() if name.endswith(".jpg"))


def test_images_without_a_label_do_not_count() -> None:
    logits = torch.randn(4, 3)
    target = torch.tensor([0, UNLABELLED, 2, UNLABELLED])
    expected = torch.nn.functional.cross_entropy(logits[[0, 2]], target[[0, 2]], reduction="sum") / 4
    assert task_loss(logits, target, 0.0) == pytest.approx(float(expected))
    nothing = torch.full((4,), UNLABELLED)
    assert task_loss(logits, nothing, 0.1) == 0
    rows = torch.tensor([[1.0, 0, 1], [UNLABELLED] * 3])
    changed = torch.cat([logits[:1], logits[1:2] + 99])
    assert task_loss(logits[:2], rows, 0.0) == pytest.approx(float(task_loss(changed, rows, 0.0)))


def test_a_weight_of_zero_switches_a_task_off() -> None:
    logits = {"a": torch.randn(2, 3), "b": torch.randn(2, 3)}
    targets = {"a": torch.tensor([0, 1]), "b": torch.tensor([1, 2])}
    both = multi_task_loss(logits, targets, {"a": 1.0, "b": 0.0}, 0.0)
    assert both == pytest.approx(float(task_loss(logits["a"], targets["a"], 0.0)))


@settings(deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([32, 48, 96]))
def test_a_warp_stays_inside_the_image(seed: int, size: int) -> None:
    rows, columns = np.mgrid[0:100, 0:100].astype(np.uint8)
    image = np.dstack([columns, rows, np.full_like(rows, 200)])
    warped = warp(image, size, np.random.default_rng(seed)).astype(int)
    assert warped.shape == (size, size, 3)
    assert (warped[..., 2] == 200).all()
    horizontal, vertical = np.ptp(warped[..., 0]), np.ptp(warped[..., 1])
    assert min(horizontal, vertical) >= 45
    assert max(horizontal, vertical) <= 99
    gradient = np.abs(np.diff(warped[..., 0], axis=1)).mean(), np.abs(np.diff(warped[..., 0], axis=0)).mean()
    assert min(gradient) == pytest.approx(0, abs=0.1)  # axis-parallel: one of the eight symmetries, no reflection inside


def test_all_eight_symmetries_occur() -> None:
    rows, columns = np.mgrid[0:64, 0:64]
    image = np.repeat((2 * columns + rows)[..., None], 3, axis=2).astype(np.uint8)  # steeper to the right than downwards
    seen = set()
    for seed in range(100):
        warped = warp(image, 16, np.random.default_rng(seed))[..., 0].astype(float)
        down, right = np.gradient(warped)[0].mean(), np.gradient(warped)[1].mean()
        seen.add((down > 0, right > 0, abs(right) > abs(down)))
    assert len(seen) == 8


def test_plain_is_the_deployed_resize() -> None:
    from spatialnet_edge.frames import fit
    from spatialnet_edge.spec import RGB, InputSpec

    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    for size in (64, 96, 128, 160):
        np.testing.assert_array_equal(plain(image, size), fit(image, InputSpec(height=size, width=size, groups=(RGB,))))


def test_sampling_gives_small_sets_their_share(data_root: Path) -> None:
    samples = load_split({name: data_root / f"{name}.zip" for name in SOURCES}, TAXONOMY, "train", 32)
    rng = np.random.default_rng(0)
    shares = {}
    for power in (0.0, 0.6, 1.0):
        drawn = draw_epoch(samples, 1000, power, rng)
        shares[power] = float((samples.data_set[drawn] == 1).mean())
        assert len(drawn) == 1000
    assert shares[0.0] == pytest.approx(0.5, abs=0.01)
    assert shares[1.0] == pytest.approx((samples.data_set == 1).mean(), abs=0.01)
    assert shares[1.0] < shares[0.6] < shares[0.0]


def test_temperature_mends_overconfidence() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4000, 5)
    target = torch.distributions.Categorical(logits=logits).sample()
    assert fit_temperature(logits, target) == pytest.approx(1, abs=0.1)
    assert fit_temperature(logits * 4, target) == pytest.approx(4, abs=0.4)
    rows = (torch.rand(4000, 5) < torch.sigmoid(logits)).float()
    assert fit_temperature(logits * 0.5, rows) == pytest.approx(0.5, abs=0.05)
    assert fit_temperature(logits, torch.full((4000,), UNLABELLED)) == 1.0


def test_abstention_asks_for_just_enough_confidence() -> None:
    confidence = torch.linspace(0.5, 1, 1000)
    probabilities = torch.stack([confidence, 1 - confidence], 1)
    target = (torch.arange(1000) < 200).long()  # wrong wherever the confidence is below 0.6
    assert abstention(probabilities, target) == pytest.approx(0.58, abs=0.021)
    assert abstention(probabilities, torch.zeros(1000, dtype=torch.long)) == 0.5


def test_positions_interpolate_to_other_sizes() -> None:
    network = SpatialNetStudent(PRESETS["student-2m"], {"a": 2}, 96).eval()
    for size in (32, 64, 96, 128):
        assert network(torch.zeros(1, 3, size, size))["a"].shape == (1, 2)


def test_the_preset_has_the_size_it_is_named_after() -> None:
    network = SpatialNetStudent(PRESETS["student-2m"], {"a": 20}, 96)
    assert 1.5e6 < sum(parameter.numel() for parameter in network.parameters()) < 2.5e6


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_run_interrupted_and_resumed_is_the_same_bit_for_bit(data_root: Path, tmp_path: Path) -> None:
    data = load_published({name: data_root / file for name, file in CONFIG.data.items()}, 64)
    train(CONFIG, data, tmp_path / "whole", "test")

    class Interrupted(Exception):
        pass

    def stop(figures: dict[str, float]) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        train(CONFIG, data, tmp_path / "parts", "test", stop)
    train(CONFIG, data, tmp_path / "parts", "test")
    whole, spec, provenance = load_student(tmp_path / "whole" / "student.pt")
    parts, other_spec, _ = load_student(tmp_path / "parts" / "student.pt")
    assert spec == other_spec
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True))
    assert provenance.data[0].startswith("eurosat: ")
    assert spec.input.shape == (48, 48, 3)
    assert [task.name for task in spec.tasks] == list(task_labels(TAXONOMY, ("eurosat", "ucmerced")))
    assert all(isinstance(task, Multilabel if task.name == "objects" else Multiclass) for task in spec.tasks)
    assert len((tmp_path / "parts" / "log.jsonl").read_text().splitlines()) == 2


def test_training_learns(data_root: Path) -> None:
    """A few images of EuroSAT are learnt within seconds: the loop, the loss and the averaged weights work together."""
    samples = load_split({"eurosat": data_root / "eurosat.zip"}, TAXONOMY, "train", 64).subset(range(0, 200, 3))
    config = TrainConfig(
        name="learn",
        preset="student-2m",
        data={"eurosat": ""},
        stages=(Stage(size=32, epochs=12),),
        epoch_images=64,
        batch=16,
        mixup_share=0.0,
        ema_decay=0.8,
    )
    labels = task_labels(TAXONOMY, ("eurosat",))
    torch.manual_seed(0)
    network = SpatialNetStudent(PRESETS["student-2m"], {task: len(names) for task, names in labels.items()}, 32)
    trainer = Trainer(config, network, samples)
    losses = [trainer.train_epoch()["loss"] for _ in range(config.epochs)]
    assert losses[-1] < 0.75 * losses[0]
    answers = predict(trainer.averaged.module, samples, 32)["land_use_eurosat"].argmax(1).numpy()
    assert (answers == samples.targets["land_use_eurosat"]).mean() > 0.4  # chance is 0.1 to 0.2
    assert math.isclose(trainer.rate(), 0, abs_tol=1e-9)


def test_a_configuration_is_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    text = 'name = "x"\npreset = "student-2m"\nstages = [{ size = 32, epochs = 1 }]\nlerning_rate = 1\n[data]\n'
    (tmp_path / "typo.toml").write_text(text)
    with pytest.raises(UsageError, match="lerning_rate"):
        read_config(str(tmp_path / "typo.toml"))
    with pytest.raises(UsageError, match=r"shipped: .*student"):
        read_config("nowhere")
    assert read_config("student").preset in PRESETS
    import msgspec

    data = load_own(own_images(tmp_path), 32)
    with pytest.raises(UsageError, match="no preset 'huge'"):
        train(msgspec.structs.replace(CONFIG, preset="huge"), data, tmp_path / "run", "")
    with pytest.raises(DataRefused, match="no such data set"):
        load_published({"eurosat": tmp_path / "nowhere.zip"}, 32)
    with pytest.raises(UsageError, match="no data set 'mars'"):
        load_published({"mars": tmp_path}, 32)


def own_images(tmp_path: Path, broken: bool = True) -> Path:
    """Two classes of the shipped samples as a user would lay them out, three copies under other names."""
    with zipfile.ZipFile(SAMPLES / "eurosat.zip") as archive:
        for kind in ("Forest", "SeaLake"):
            (tmp_path / "mine" / kind).mkdir(parents=True)
            for copy in range(3):
                for name in [entry for entry in archive.namelist() if f"/{kind}/" in entry]:
                    (tmp_path / "mine" / kind / f"{copy}_{Path(name).name}").write_bytes(archive.read(name))
    if broken:
        (tmp_path / "mine" / "Forest" / "0_broken.jpg").write_bytes(b"no image")
    return tmp_path / "mine"


def test_a_users_own_folder_is_split_and_broken_images_are_named(tmp_path: Path) -> None:
    data = load_own(own_images(tmp_path), 64)
    assert data.labels == {"land_use": ("Forest", "SeaLake")}
    assert 140 < len(data.train) < 175
    assert 3 <= len(data.tune) < 20
    assert [name.endswith("Forest/0_broken.jpg") for name in data.broken] == [True]
    assert data.summary == (f"mine: {len(data.train)} images",)


def test_a_folder_that_cannot_be_trained_on_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="no labelled image found"):
        load_own(tmp_path, 64)
    (tmp_path / "few" / "a").mkdir(parents=True)
    (tmp_path / "few" / "a" / "1.jpg").write_bytes(b"x")
    with pytest.raises(DataRefused, match="one class, 'a'"):
        load_own(tmp_path / "few", 64)
    (tmp_path / "few" / "b").mkdir()
    (tmp_path / "few" / "b" / "2.jpg").write_bytes(b"x")
    with pytest.raises(DataRefused, match="give at least a few dozen"):
        load_own(tmp_path / "few", 64)


def test_transfer_takes_everything_but_the_heads(tmp_path: Path) -> None:
    from spatialnet_edge.manifest import Provenance
    from spatialnet_edge.spec import RGB, InputSpec, ModelSpec
    from spatialnet_training.checkpoint import save_student
    from spatialnet_training.run import transfer

    torch.manual_seed(1)
    old = SpatialNetStudent(PRESETS["student-2m"], {"a": 3, "b": 2}, 96)
    spec = ModelSpec(
        name="old",
        input=InputSpec(height=96, width=96, groups=(RGB,)),
        tasks=(Multiclass(name="a", labels=("x", "y", "z")), Multiclass(name="b", labels=("x", "y"))),
    )
    save_student(tmp_path / "old.pt", old, "student-2m", spec, Provenance(created="", tool="", source=""))
    new = SpatialNetStudent(PRESETS["student-2m"], {"land_use": 5}, 64)
    head = new.heads["land_use"].weight.clone()
    transfer(new, tmp_path / "old.pt")
    assert torch.equal(new.blocks[0].qkv.weight, old.blocks[0].qkv.weight)
    assert torch.equal(new.heads["land_use"].weight, head)
    assert new.positions.shape[-1] == 4


def test_the_train_command_goes_from_a_folder_to_a_bundle_that_knows_its_classes(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from spatialnet_edge.cli.app import app

    folder, out = own_images(tmp_path), tmp_path / "run"
    (tmp_path / "quick.toml").write_text(
        'name = "quick"\npreset = "student-2m"\nstages = [{ size = 32, epochs = 2 }]\nepoch_images = 128\n'
        "batch = 16\nlearning_rate = 5e-4\nema_decay = 0.9\n[data]\n"
    )
    arguments = ["train", "--data", folder, "--config", tmp_path / "quick.toml", "--out", out]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert "0_broken.jpg: not an image" in result.output
    bundle = tmp_path / "mine.snb"
    arguments = ["build", out / "student.pt", "--labelled", folder, "-o", bundle]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    report = tmp_path / "report.json"
    result = CliRunner().invoke(app, ["evaluate", str(bundle), str(folder), "--json", str(report)])
    assert result.exit_code == 0, result.output
    import json

    (head,) = json.loads(report.read_text())["heads"]
    assert head["labels"] == ["Forest", "SeaLake"]
    assert head["accuracy"] > 0.9
