"""A user's own labels: folders, tables, and the mistakes that are found before training."""

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.cli.app import app
from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.core.spec import Multiclass, Multilabel, Regression
from spatialnet_training.data.custom_dataset import load_own
from spatialnet_training.data.dataset_options import DatasetOptions
from spatialnet_training.data.splits import calibration_quota, hold_out
from spatialnet_training.losses.multitask import UNLABELLED
from training_fixtures import own_images


def test_a_users_own_folder_is_split_and_broken_images_are_named(tmp_path: Path) -> None:
    data = load_own(own_images(tmp_path), 64)
    assert data.heads == (Multiclass(name="land_use", labels=("Forest", "SeaLake")),)
    assert (len(data.train), len(data.holdout)) == (152, 10)
    assert data.val is not None
    assert len(data.val) == 18
    assert [name.endswith("Forest/0_broken.jpg") for name in data.broken] == [True]
    assert data.summary == (f"mine: {len(data.train)} images",)


@pytest.mark.parametrize(("images", "held_out"), [(3, 0), (8, 2), (30, 7), (40, 10), (200, 10), (1000, 50)])
def test_a_set_of_any_size_has_a_hold_out(images: int, held_out: int) -> None:
    """A random choice of one in twenty could leave a small set without a hold-out, and the run would be refused."""
    paths = [f"class/{index}.jpg" for index in range(images)]
    chosen = [hold_out(["class"] * images, each, calibration_quota(["class"] * images)) for each in (paths, paths[::-1])]
    assert len(chosen[0]) == held_out
    assert {paths[row] for row in chosen[0]} == {paths[::-1][row] for row in chosen[1]}


def test_folders_of_splits_are_kept_apart(tmp_path: Path) -> None:
    """Images below `val` or `test` are used neither for training nor for calibration."""
    folder = own_images(tmp_path, broken=False)
    for index, file in enumerate(sorted(folder.rglob("*.jpg"))):
        part = ("train", "train", "train", "valid", "test")[index % 5]
        (tmp_path / "split_calibration" / part / file.parent.name).mkdir(parents=True, exist_ok=True)
        file.rename(tmp_path / "split_calibration" / part / file.parent.name / file.name)
    data = load_own(tmp_path / "split_calibration", 64)
    assert data.heads == (Multiclass(name="land_use", labels=("Forest", "SeaLake")),)
    assert len(data.train) + len(data.holdout) == 108
    assert data.unseen == {"val": 36, "test": 36}


def test_a_damaged_file_of_a_zip_is_named_and_skipped(tmp_path: Path) -> None:
    folder = own_images(tmp_path, broken=False)
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for file in sorted(folder.rglob("*.jpg")):
            archive.write(file, file.relative_to(folder))
    first = sorted(folder.rglob("*.jpg"))[0]
    content = first.read_bytes()
    damaged = (tmp_path / "mine.zip").read_bytes().replace(content, content[:-20] + bytes(20), 1)
    (tmp_path / "mine.zip").write_bytes(damaged)
    assert load_own(tmp_path / "mine.zip", 64).broken == [f"{tmp_path / 'mine.zip'}: Forest/{first.name}"]


def test_a_folder_that_cannot_be_trained_on_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="no labelled images found"):
        load_own(tmp_path, 64)
    (tmp_path / "few" / "a").mkdir(parents=True)
    (tmp_path / "few" / "a" / "1.jpg").write_bytes(b"x")
    with pytest.raises(DataRefused, match="one class, 'a'"):
        load_own(tmp_path / "few", 64)
    (tmp_path / "few" / "b").mkdir()
    (tmp_path / "few" / "b" / "2.jpg").write_bytes(b"x")
    with pytest.raises(DataRefused, match="give at least a few dozen"):
        load_own(tmp_path / "few", 64)


BOATS = DatasetOptions(regression=("boats seen",))


def write_table(tmp_path: Path, mistake: str = "") -> Path:
    """Words, two columns of 0 and 1, a quantity, a split; one cell of each kind is empty."""
    folder = own_images(tmp_path, broken=False)
    files = sorted(folder.rglob("*.jpg"))
    rows = ["path,split,Cover,ships,trees,boats seen"]
    for index, file in enumerate(files):
        kind = file.parent.name
        cover = mistake if mistake and index == 1 else kind
        split = "val" if index % 5 == 0 else "train"
        rows.append(
            f"{file.relative_to(tmp_path)},{split},{cover},{int(kind == 'SeaLake')},{int(kind == 'Forest')},{index % 7}"
        )
    rows[3] = rows[3].split(",")[0] + ",train,,,,"
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "labels.csv"


def test_a_table_gives_one_head_for_each_kind_of_column(tmp_path: Path) -> None:
    data = load_own(write_table(tmp_path), 64, options=BOATS)
    assert data.heads == (
        Multiclass(name="cover", labels=("Forest", "SeaLake")),
        Regression(name="boats_seen", unit="boats seen", low=0, high=6),
        Multilabel(name="objects", labels=("ships", "trees"), thresholds=(0.5, 0.5)),
    )
    samples = data.train
    assert set(np.unique(samples.targets["cover"])) == {UNLABELLED, 0, 1}
    assert (samples.targets["objects"][:, 0] == UNLABELLED).sum() == 1
    quantity = samples.targets["boats_seen"]
    assert quantity[quantity != UNLABELLED].max() == pytest.approx(1)
    sea = samples.targets["cover"] == 1
    assert (samples.targets["objects"][sea] == [1, 0]).all()


def test_rows_with_missing_cells_are_used_for_training_only(tmp_path: Path) -> None:
    whole = load_own(write_table(tmp_path), 64, options=BOATS)
    table = tmp_path / "labels.csv"
    header, *rows = [line.split(",") for line in table.read_text().splitlines()]
    cover, trees, boats = (header.index(name) for name in ("Cover", "trees", "boats seen"))
    for row in rows:
        if row[cover] == "SeaLake" and row[boats] in "3456":
            row[trees] = ""
    table.write_text("\n".join(map(",".join, [header, *rows])) + "\n")
    data = load_own(table, 64, options=BOATS)
    for part, before, taught in ((data.train, whole.train, [1, UNLABELLED]), (data.holdout, whole.holdout, UNLABELLED)):
        open_in_part = (part.targets["cover"] == 1) & (part.targets["boats_seen"][:, 0] >= 0.5)
        assert open_in_part.any()
        assert (part.targets["objects"][open_in_part] == taught).all()
        assert (part.targets["objects"][~open_in_part] == before.targets["objects"][~open_in_part]).all()
        assert (part.targets["cover"] == before.targets["cover"]).all()


def test_a_typing_error_is_found_before_training(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match=r"1 images of 'Forrest' and .* of 'Forest'; if that is a typo"):
        load_own(write_table(tmp_path, "Forrest"), 64)


def test_listed_labels_are_not_checked_for_typos(tmp_path: Path) -> None:
    table = write_table(tmp_path, "Forrest")
    assert (
        load_own(table, 64, options=DatasetOptions(labels=("Forest", "Forrest", "SeaLake"), columns=("Cover",))).heads[0].width
        == 3
    )
    with pytest.raises(DataRefused, match="1 images of 'Forrest', which is not in --labels"):
        load_own(table, 64, options=DatasetOptions(labels=("Forest", "SeaLake"), columns=("Cover",)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has nothing; expected a header with 'path'"),
        ("file,kind\na.jpg,b\n", "has file, kind; expected a header with 'path'"),
        ("path,kind\nnowhere.jpg,b\n", "lists 1 files that do not exist, the first nowhere.jpg"),
        ("path\nhere.jpg\n", "no label column"),
        ("path,kind\nhere.jpg,b\nhere.jpg,b\n", "column 'kind' has the same value everywhere"),
        ("path,kind\nhere.jpg,3\nother.jpg,b\n", "column 'kind' has numbers and 'b'"),
        ("path,kind\nhere.jpg,3\nother.jpg,inf\n", "column 'kind' has numbers and 'inf'"),
        ("path,quality\nhere.jpg,a\nother.jpg,b\n", "columns cannot be heads: head name 'quality' is reserved"),
        ("path,größe\nhere.jpg,a\nother.jpg,b\n", "a column is named with letters a to z"),
        ("path,a b,a-b\nhere.jpg,x,1\nother.jpg,y,2\n", "the columns 'a b' and 'a-b' would both be 'a_b'"),
        (f"path,kind\nhere.jpg,{'a' * 81}\nother.jpg,b\n", "a label has at most 80 characters"),
        (
            "path,split,kind\nhere.jpg,trian,a\nother.jpg,val,b\n",
            "1 images are of the split 'trian'; expected train, val or test",
        ),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path: Path, text: str, says: str) -> None:
    for name in ("here.jpg", "other.jpg"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataRefused, match=says):
        load_own(tmp_path / "labels.csv", 64)


def test_the_train_command_makes_a_bundle_from_a_folder(tmp_path: Path) -> None:
    folder, out = own_images(tmp_path), tmp_path / "run"
    for extra in range(150):  # uneven on purpose
        (folder / "SeaLake" / f"again_{extra}.jpg").write_bytes(
            next(iter(sorted((folder / "SeaLake").glob("0_*")))).read_bytes()
        )
    for file in sorted((folder / "Forest").glob("[12]_*")):
        file.unlink()
    arguments = [
        "train",
        "--data",
        folder,
        "--output",
        out,
        "--set",
        "stages=[{size=32, epochs=4}]",
        "--set",
        "epoch_images=128",
    ]
    result = CliRunner().invoke(
        app, [str(argument) for argument in [*arguments, "--set", "batch=16", "--set", "ema_decay=0.9"]]
    )
    assert result.exit_code == 0, result.output
    assert "0_broken.jpg: not an image" in result.output
    assert "imbalance in land_use" in result.output
    assert "heads: land_use (2 classes)" in result.output
    record = out / "dataset.json"
    assert f"evaluate run.snb {record} --split val" in " ".join(result.output.split())
    bundle = tmp_path / "mine.snb"
    result = CliRunner().invoke(app, ["build", str(out), "--labelled", str(folder), "-o", str(bundle)])
    assert result.exit_code == 0, result.output
    assert "images of mine are used for the evaluation" in result.output
    report = tmp_path / "report.json"
    result = CliRunner().invoke(app, ["evaluate", str(bundle), str(folder)])
    assert "these include training images" in result.output
    result = CliRunner().invoke(app, ["evaluate", str(bundle), str(folder), "--split", "val", "--json", str(report)])
    assert result.exit_code == 0, result.output
    assert "these include training images" not in result.output
    (head,) = json.loads(report.read_text())["heads"]
    assert head["labels"] == ["Forest", "SeaLake"]
    assert head["accuracy"] > 0.9


def test_a_table_trains_gates_and_evaluates_every_kind_of_head(tmp_path: Path) -> None:
    table, out, bundle, report = write_table(tmp_path), tmp_path / "run", tmp_path / "mine.snb", tmp_path / "report.json"
    small = ["stages=[{size=32, epochs=3}]", "epoch_images=128", "batch=16", "ema_decay=0.9"]
    overrides = [argument for each in small for argument in ("--set", each)]
    commands = [
        ["train", "--data", str(table), "--output", str(out), "--regression", "boats seen", *overrides],
        ["build", str(out), "--labelled", str(table), "-o", str(bundle), "--precision", "fp32"],
        ["evaluate", str(bundle), str(table), "--split", "val", "--json", str(report)],
    ]
    for command in commands:
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, (command, result.output, result.exception)
    heads = {head["head"]: head for head in json.loads(report.read_text())["heads"]}
    assert set(heads) == {"cover", "boats_seen", "objects"}
    assert heads["cover"]["accuracy"] > 0.8
    assert heads["boats_seen"]["mean_absolute_error"] < 3  # from 0 to 6, and not learnable: the prediction is about the mean
    assert heads["objects"]["mean_average_precision"] > 0.8


def test_a_range_goes_from_training_into_the_bundle_and_evaluation_uses_it(tmp_path: Path) -> None:
    """Of 12-bit files the bundle's accuracy is that of training, without another word."""
    rng = np.random.default_rng(0)
    for kind, level in (("dark", 900), ("light", 2600)):
        (tmp_path / "deep" / kind).mkdir(parents=True)
        for index in range(24):
            image = rng.normal(level, 200, (40, 40, 3)).clip(0, 4095).astype(np.uint16)
            cv2.imwrite(str(tmp_path / "deep" / kind / f"{index}.png"), image)
    out, bundle, report = tmp_path / "run", tmp_path / "deep.snb", tmp_path / "report.json"
    small = ["--size", "32", "--epochs", "3", "--batch", "16", "--set", "epoch_images=96", "--backbone", "student-1m"]
    folder = str(tmp_path / "deep")
    done = CliRunner().invoke(app, ["train", "--data", folder, "--range", "0,4095", "--output", str(out), *small])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["export", str(out), "-o", str(bundle)])
    assert done.exit_code == 0, done.output
    assert open_bundle(bundle).spec.input.value_range == (0, 4095)
    done = CliRunner().invoke(app, ["evaluate", str(bundle), folder, "--corrupted", "0", "--json", str(report)])
    assert done.exit_code == 0, done.output
    (head,) = json.loads(report.read_text())["heads"]
    assert head["accuracy"] > 0.9
    done = CliRunner().invoke(
        app, ["evaluate", str(bundle), folder, "--corrupted", "0", "--range", "0,65535", "--json", str(report)]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(report.read_text())["heads"][0]["accuracy"] < 0.9  # both look dark


def test_groups_that_are_too_large_to_hold_out_are_said_to_be(tmp_path: Path) -> None:
    folder = own_images(tmp_path, broken=False)
    for index, file in enumerate(sorted(folder.rglob("*.jpg"))):
        file.rename(file.with_name(f"flight{index % 2}_{file.name}"))
    with pytest.raises(DataRefused, match="2 groups, too large to hold one out; give smaller groups with --group"):
        load_own(folder, 64, options=DatasetOptions(group="flight[01]"))
