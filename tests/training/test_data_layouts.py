"""Typical folders, zips and tables: validation images are never trained on, and no file is silently ignored."""

import csv
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from spatialnet_edge.core.errors import DataRefused, UsageError
from spatialnet_edge.core.spec import RGB, Multiclass, Regression
from spatialnet_training.data.augmentation import random_view
from spatialnet_training.data.custom_dataset import load_own
from spatialnet_training.data.dataset_options import DatasetOptions
from spatialnet_training.data.dataset_record import RECORD, write_record
from spatialnet_training.data.groups import Shot, groups_by_flight
from spatialnet_training.data.labelled_dataset import open_labelled
from spatialnet_training.data.splits import hold_out, known_split, val_quota


def tree(top: Path, *files: str) -> Path:
    for file in files:
        (top / file).parent.mkdir(parents=True, exist_ok=True)
        (top / file).write_bytes(b"an image")
    return top


def zipped(folder: Path) -> Path:
    """The folder as a zip that holds the folder itself, as a desktop makes one."""
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder.parent))
    return folder.with_suffix(".zip")


def reasons(path: Path, options: DatasetOptions | None = None) -> dict[str, str]:
    return {each.name: each.reason for each in open_labelled(path, options=options or DatasetOptions()).unused}


@pytest.mark.parametrize("packed", [False, True])
def test_the_splits_of_a_zip_with_one_top_folder_are_seen(tmp_path: Path, packed: bool) -> None:
    files = [f"images/{kind}/{index}.jpg" for kind in ("roof", "road") for index in range(10)]
    folder = tree(tmp_path / "outer" / "set", *files)
    rows = [f"{file},{'val' if index % 2 else 'train'}" for index, file in enumerate(files)]
    (folder / "splits.csv").write_text("path,split\n" + "\n".join(rows) + "\n")
    images = open_labelled(zipped(folder) if packed else tmp_path / "outer")
    assert images.said
    assert images.files == tuple(sorted(files))
    assert len(images.of_split("val")) == len(images.of_split("train")) == 10


def test_a_single_class_folder_is_not_replaced_by_its_subfolders(tmp_path: Path) -> None:
    assert open_labelled(tree(tmp_path, "forest/1.jpg", "forest/2.jpg")).class_names == ("forest",)
    assert open_labelled(tree(tmp_path / "b", "forest/100MEDIA/1.jpg")).class_names == ("forest",)


@pytest.mark.parametrize(
    "name", ["eval", "dev", "validate", "val_set", "Validation Images", "val2017", "valid-data", "holdout"]
)
def test_every_usual_name_of_a_validation_folder_is_one(tmp_path: Path, name: str) -> None:
    tree(tmp_path, "train/roof/1.jpg", "train/road/1.jpg", f"{name}/roof/2.jpg", f"{name}/road/2.jpg")
    assert len(open_labelled(tmp_path, "val")) == 2


@pytest.mark.parametrize("name", ["valley", "evaluate_me", "trainyard", "2017", "contest"])
def test_words_that_only_begin_like_a_split_are_not_splits(name: str) -> None:
    assert known_split(name) is None


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            ("train/roof/1.jpg", "train/road/1.jpg", "extra/roof/2.jpg"),
            r"'extra' \(1 images\) is next to .* train \(2 images\)",
        ),
        (("roof/train/1.jpg", "roof/val/2.jpg", "road/train/1.jpg"), "below a class, the first in 'train' below 'road'"),
        (("a/roof/1.jpg", "a/road/2.jpg", "a/splits.csv", "b/roof/1.jpg"), r"has a/splits\.csv, which is not at the top"),
        (("roof/1.jpg", "road/2.jpg", "train.txt", "val.txt"), r"train\.txt and val\.txt look like lists of splits"),
    ],
)
def test_a_layout_that_could_leak_is_refused(tmp_path: Path, files: tuple[str, ...], says: str) -> None:
    with pytest.raises(DataRefused, match=says):
        open_labelled(tree(tmp_path, *files))


def test_images_that_splits_csv_does_not_name_are_not_trained_on(tmp_path: Path) -> None:
    tree(tmp_path, "roof/1.jpg", "roof/2.jpg", "road/3.jpg", "road/4.jpg")
    (tmp_path / "splits.csv").write_text("path,split\nroof/1.jpg,train\nroad/3.jpg,val\n")
    assert open_labelled(tmp_path).files == ("road/3.jpg", "roof/1.jpg")
    assert reasons(tmp_path) == {"roof/2.jpg": "not in splits.csv", "road/4.jpg": "not in splits.csv"}


def test_links_are_followed_and_unused_files_are_reported(tmp_path: Path) -> None:
    elsewhere = tree(tmp_path / "elsewhere", "1.jpg", "2.jpg")
    folder = tree(tmp_path / "set", "road/1.jpg", "road/2.heic", "road/3.psd", "road/4.nef", "road/notes.txt", "alone.jpg")
    (folder / "roof").symlink_to(elsewhere)
    (folder / "road" / "lost.jpg").symlink_to(tmp_path / "nowhere")
    (folder / "road" / "again").symlink_to(folder)
    os.mkfifo(folder / "road" / "pipe.jpg")
    assert open_labelled(folder).files == ("road/1.jpg", "roof/1.jpg", "roof/2.jpg")
    found = reasons(folder)
    assert set(found) == {
        "road/2.heic", "road/3.psd", "road/4.nef", "road/notes.txt", "alone.jpg", "road/lost.jpg", "road/again", "road/pipe.jpg",
    }  # fmt: skip
    assert found["road/2.heic"] == "the format .heic is not supported; convert it to JPEG, PNG or TIFF"
    assert found["road/lost.jpg"] == "a broken link"
    assert found["alone.jpg"] == "no class folder above it"
    assert found["road/again"] == "a link to a folder above itself"


def test_the_first_folder_is_the_class(tmp_path: Path) -> None:
    """Cameras call their folders 100MEDIA, so the deepest folder would join forest and farm."""
    tree(tmp_path, "forest/100MEDIA/1.jpg", "farm/100MEDIA/2.jpg", "__pycache__/x/3.jpg", "forest/@eaDir/4.jpg")
    assert open_labelled(tmp_path).class_names == ("farm", "forest")
    deepest = open_labelled(tmp_path, options=DatasetOptions(classes_from="deepest"))
    assert deepest.class_names == ("100MEDIA",)


def test_subfolders_common_to_all_classes_are_reported(tmp_path: Path) -> None:
    tree(tmp_path, *(f"{site}/{kind}/1.jpg" for site in ("north", "south") for kind in ("forest", "farm")))
    assert "--classes-from deepest" in open_labelled(tmp_path).notes[0]
    assert open_labelled(tmp_path, options=DatasetOptions(classes_from="deepest")).class_names == ("farm", "forest")


def test_a_group_is_in_one_split_only(tmp_path: Path) -> None:
    files = [f"{kind}/flight{flight}_{frame}.jpg" for kind in ("roof", "road") for flight in range(12) for frame in range(10)]
    images = open_labelled(tree(tmp_path, *files), options=DatasetOptions(group="flight[0-9]+"))
    sides: dict[str, set[str]] = {}
    for group, split in zip(images.groups, images.splits, strict=True):
        sides.setdefault(group, set()).add(split)
    assert len(sides) == 12
    assert all(len(each) == 1 for each in sides.values())
    assert {"train", "val"} == set(images.splits)
    assert any("12 groups" in note for note in images.notes)
    with pytest.raises(UsageError, match="no path matches"):
        open_labelled(tmp_path, options=DatasetOptions(group="mission[0-9]+"))
    with pytest.raises(UsageError, match="not a regular expression"):
        open_labelled(tmp_path, options=DatasetOptions(group="flight["))


def test_a_group_that_is_most_of_a_class_is_trained_on() -> None:
    kinds, groups = ["a"] * 20, ["one"] * 15 + ["two"] * 5
    held = hold_out(kinds, groups, val_quota(kinds))
    assert {groups[row] for row in held} == {"two"}


def test_photographs_of_one_flight_or_place_are_one_group() -> None:
    shots = [
        Shot(0.0, None),
        Shot(50.0, None),
        Shot(90.0, None),
        Shot(9000.0, (47.0, 8.0)),
        Shot(20000.0, (47.0003, 8.0)),
        Shot(30000.0, (47.1, 8.0)),
        None,
    ]
    groups = groups_by_flight([f"{index}.jpg" for index in range(len(shots))] * 1, shots)
    names = {index: group.partition("#")[0] for index, group in enumerate(groups)}
    assert names[0] == names[1] == names[2]
    assert names[3] == names[4]
    assert len(set(names.values())) == 4


def test_real_drone_photographs_are_grouped_by_their_exif_data(shared_data, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared_data("drone_brighton_beach.zip")) as archive:
        photographs = [name for name in archive.namelist() if name.lower().endswith(".jpg")]
        for index, name in enumerate(photographs):
            target = tmp_path / ("a" if index < len(photographs) / 2 else "b") / Path(name).name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(archive.read(name))
    images = open_labelled(tmp_path)
    assert {group.partition("#")[0] for group in images.groups} != set(images.files)
    assert len(set(open_labelled(tmp_path, options=DatasetOptions(group="none")).groups)) == len(photographs)


def pictures(top: Path, pixels: dict[str, np.ndarray], count: int = 20) -> Path:
    for name, image in pixels.items():
        for index in range(count):
            file = top / f"{Path(name).stem}/{index}{Path(name).suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".png":
                cv2.imwrite(str(file), image[..., ::-1])
            else:
                tifffile.imwrite(file, image, photometric="rgb")
    return top


@pytest.mark.parametrize(
    ("suffix", "dtype", "high", "depth"),
    [(".tif", np.uint16, 4095, "uint16"), (".png", np.uint16, 4095, "uint16"), (".tif", np.float32, 1.0, "float32")],
)
def test_images_of_more_than_eight_bits_need_a_range(
    tmp_path: Path, suffix: str, dtype: type, high: float, depth: str
) -> None:
    """The high byte of a 12-bit picture is nearly black, and values from 0 to 1 become zero."""
    image = (np.full((24, 24, 3), [0.2, 0.4, 0.8]) * high).astype(dtype)
    folder = pictures(tmp_path, {f"a{suffix}": image, f"b{suffix}": image})
    with pytest.raises(DataRefused, match=f"its pixels are {depth}; .*--range LOW,HIGH"):
        load_own(folder, 64)
    data = load_own(folder, 64, options=DatasetOptions(value_range=(0, high)))
    np.testing.assert_allclose(data.train.images[0].mean(axis=(0, 1)), [51, 102, 204], atol=1)
    images = open_labelled(folder, options=DatasetOptions(value_range=(0, high)))
    (first,) = images.tree.read(images.files[:1])
    decoded = images.decode(images.files[0], first, (RGB,))
    assert decoded is not None
    np.testing.assert_array_equal(decoded, data.train.images[0])


def test_eight_bits_need_no_range(tmp_path: Path) -> None:
    image = np.full((24, 24, 3), 90, np.uint8)
    data = load_own(pictures(tmp_path, {"a.tif": image, "b.png": image}), 64)
    assert {int(each.mean()) for each in data.train.images} == {90}


@pytest.mark.parametrize(("flips", "count"), [("all", 8), ("horizontal", 2), ("none", 1)])
def test_only_the_allowed_symmetries_are_seen(flips: str, count: int) -> None:
    rng = np.random.default_rng(0)
    views = [random_view(32, 32, 32, rng, 0.0, flips=flips) for _ in range(200)]  # type: ignore[arg-type]
    assert len({tuple(np.sign(view[:, :2].round(6)).ravel()) for view in views}) == count


@pytest.mark.parametrize(
    ("train", "val", "says"),
    [
        (
            ("farm", "forest"),
            ("farm", "forrest"),
            "0 images of 'forrest' in train and 4 in val; train has 12 images of 'forest'",
        ),
        (("farm", "forest"), ("farm", "forest", "lake"), "0 images of 'lake' in train and 4 in val; give it training images"),
        (("Farm", "farm", "lake"), (), "12 images of 'Farm' and 12 of 'farm'"),
        (("bare soil", "bare_soil", "lake"), (), "12 images of 'bare soil' and 12 of 'bare_soil'"),
    ],
)
def test_classes_without_training_images_or_with_two_names_are_refused(
    tmp_path: Path, train: tuple[str, ...], val: tuple[str, ...], says: str
) -> None:
    files = [f"train/{kind}/{i}.jpg" for kind in train for i in range(12)]
    tree(tmp_path, *files, *(f"val/{kind}/{i}.jpg" for kind in val for i in range(4)))
    with pytest.raises(DataRefused, match=says):
        load_own(tmp_path, 64)


def table(tmp_path: Path, header: str, rows: list[str]) -> Path:
    image = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    for index in range(len(rows)):
        (tmp_path / f"{index}.png").write_bytes(image)
    (tmp_path / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    return tmp_path / "labels.csv"


def test_a_path_with_two_labels_is_refused_and_one_that_is_repeated_is_used_once(tmp_path: Path) -> None:
    rows = [f"{index}.png,{'ab'[index % 2]}" for index in range(20)]
    path = table(tmp_path, "path,kind", [*rows, "3.png,b"])
    assert len(open_labelled(path)) == 20
    assert reasons(path) == {"3.png": "listed twice; used once"}
    with pytest.raises(DataRefused, match=r"3\.png is listed twice, with kind 'b' and 'a'"):
        open_labelled(table(tmp_path, "path,kind", [*rows, "3.png,a"]))


def test_integers_are_classes_unless_they_are_said_to_be_quantities(tmp_path: Path) -> None:
    path = table(tmp_path, "path,kind,id", [f"{index}.png,{index % 3 + 9},{index}" for index in range(60)])
    with pytest.raises(DataRefused, match=r"column 'id' has 60 different values .*--ignore id, or --regression id"):
        load_own(path, 64)
    heads = load_own(path, 64, options=DatasetOptions(ignore=("id",))).heads
    assert heads == (Multiclass(name="kind", labels=("9", "10", "11")),)
    heads = load_own(path, 64, options=DatasetOptions(columns=("kind",), regression=("kind",))).heads
    assert heads == (Regression(name="kind", unit="kind", low=0, high=11),)
    with pytest.raises(UsageError, match="has no column 'fold'; it has path, kind, id"):
        load_own(path, 64, options=DatasetOptions(ignore=("fold",)))


def test_a_column_can_name_the_groups(tmp_path: Path) -> None:
    rows = [f"{index}.png,{'ab'[index % 2]},site{index % 10}" for index in range(60)]
    images = open_labelled(table(tmp_path, "path,kind,site", rows), options=DatasetOptions(group="site"))
    assert set(images.groups) == {f"site{index}" for index in range(10)}
    assert images.column_names == ("kind",)
    val = set(images.of_split("val").groups)
    assert val
    assert not val & set(images.of_split("train").groups)


def test_a_table_in_which_only_some_rows_have_a_split_is_refused(tmp_path: Path) -> None:
    rows = [f"{index}.png,{'ab'[index % 2]},{'val' if index == 0 else ''}" for index in range(20)]
    with pytest.raises(DataRefused, match=r"19 rows have no split, the first 1\.png"):
        open_labelled(table(tmp_path, "path,kind,split", rows))


def test_a_table_may_have_semicolons(tmp_path: Path) -> None:
    images = open_labelled(table(tmp_path, "path;kind", [f"{index}.png;{'ab'[index % 2]}" for index in range(20)]))
    assert images.columns["1.png"] == {"kind": "b"}


def test_names_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    top = os.fsencode(tmp_path)
    for kind in (b"roof", b"road"):
        os.makedirs(os.path.join(top, kind))
        for index in range(12):
            with open(os.path.join(top, kind, b"caf\xe9_%d.jpg" % index), "wb") as file:
                file.write(b"an image")
    images = open_labelled(tmp_path)
    assert len(images) == 24
    assert all(images.tree.read(images.files))


def test_a_record_keeps_the_options_and_splits_of_a_run(tmp_path: Path) -> None:
    """An image that was added later was not used for training, so it is for validation."""
    files = [f"{kind}/flight{flight}_{frame}.jpg" for kind in ("roof", "road") for flight in range(6) for frame in range(4)]
    folder = tree(tmp_path / "set", *files)
    images = open_labelled(folder, options=DatasetOptions(group="flight[0-9]+", value_range=(0, 4095)))
    (tmp_path / "run").mkdir()
    record = write_record(tmp_path / "run", folder, images)
    assert record.name == RECORD
    tree(folder, "roof/flight0_9.jpg")
    again = open_labelled(record)
    splits = dict(zip(again.files, again.splits, strict=True))
    assert splits.pop("roof/flight0_9.jpg") == "val"
    assert splits == dict(zip(images.files, images.splits, strict=True))
    assert again.options == images.options
    assert again.said
    rows = list(csv.DictReader(io.StringIO((tmp_path / "run" / "splits.csv").read_text())))
    assert len(rows) == len(files)
    folder.rename(tmp_path / "moved")
    with pytest.raises(DataRefused, match="the data are no longer at"):
        open_labelled(record)


def test_a_parquet_table_is_read_as_a_csv_is(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    csv_table = open_labelled(table(tmp_path, "path,kind,ships", [f"{i}.png,{'ab'[i % 2]},{i % 2}" for i in range(20)]))
    columns = {
        "path": [f"{i}.png" for i in range(20)],
        "kind": ["ab"[i % 2] for i in range(20)],
        "ships": [bool(i % 2) for i in range(20)],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "labels.parquet")
    images = open_labelled(tmp_path / "labels.parquet")
    assert images.columns == csv_table.columns
    assert images.splits == csv_table.splits
    (tmp_path / "labels.parquet").write_bytes(b"nothing")
    with pytest.raises(DataRefused, match="not a readable Parquet file"):
        open_labelled(tmp_path / "labels.parquet")


def test_coco_annotations_become_image_labels(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    table(tmp_path / "images", "path", ["x"] * 40)
    tree_of = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(40)],
        "categories": [{"id": 7, "name": "ship"}, {"id": 9, "name": "storage tank"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 7 if i % 2 else 9, "bbox": [0, 0, 1, 1]} for i in range(40) if i % 4
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(tree_of))
    data = load_own(tmp_path / "instances.json", 64)
    (head,) = data.heads
    assert (head.name, head.labels) == ("objects", ("ship", "storage tank"))
    assert data.train.targets["objects"].sum(axis=1).min() == 0
    tree_of["annotations"][0]["category_id"] = 1
    (tmp_path / "instances.json").write_text(json.dumps(tree_of))
    with pytest.raises(DataRefused, match="not COCO annotations: 1 is missing"):
        open_labelled(tmp_path / "instances.json")


READ_ALL = """
import sys
from pathlib import Path
from spatialnet_training.data.deep_pixels import read_deep
from spatialnet_training.data.groups import exif_of
from spatialnet_training.data.labelled_dataset import open_labelled

images = open_labelled(Path(sys.argv[1]))
print(exif_of(images.tree, images.files), *{read_deep((Path(sys.argv[1]) / file).read_bytes()).shape for file in images.files})
"""


def test_tiffs_of_many_bands_print_nothing(tmp_path: Path) -> None:
    """Pillow prints "More samples per pixel than can be decoded" when it is asked about one of more than six bands."""
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        levels = np.zeros((16, 16, 12), np.uint16)
        tifffile.imwrite(tmp_path / label / "0.tif", levels, photometric="rgb", planarconfig="contig")
    done = subprocess.run([sys.executable, "-c", READ_ALL, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("[None, None] (16, 16, 12)\n", "")
