"""Typical labelled data sets: splits, metadata files of desktops, and invalid tables."""

import zipfile
from collections import Counter
from pathlib import Path

import pytest

from spatialnet_edge.core.errors import DataRefused
from spatialnet_training.data.labelled_dataset import open_labelled


def tree(top: Path, *files: str) -> Path:
    for file in files:
        (top / file).parent.mkdir(parents=True, exist_ok=True)
        (top / file).write_bytes(b"an image")
    return top


def splits(path: Path) -> dict[str, str]:
    images = open_labelled(path)
    return dict(zip(images.files, images.splits, strict=True))


@pytest.mark.parametrize("validation", ["val", "valid", "Validation"])
def test_folders_named_after_splits_are_splits(tmp_path: Path, validation: str) -> None:
    """Layouts of Ultralytics, Roboflow and Keras: validation images must never be used for training."""
    tree(tmp_path, "train/roof/1.jpg", "train/road/1.jpg", f"{validation}/roof/2.jpg", "test/road/3.jpg")
    images = open_labelled(tmp_path)
    assert images.said
    assert images.class_names == ("road", "roof")
    assert splits(tmp_path) == {
        "train/roof/1.jpg": "train",
        "train/road/1.jpg": "train",
        f"{validation}/roof/2.jpg": "val",
        "test/road/3.jpg": "test",
    }
    assert open_labelled(tmp_path, "val").files == open_labelled(tmp_path, "validation").files == (f"{validation}/roof/2.jpg",)


def test_a_class_that_is_called_like_a_split_is_a_class(tmp_path: Path) -> None:
    assert not open_labelled(tree(tmp_path, "test/1.jpg", "field/2.jpg")).said


def test_splits_without_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="split folders without class folders in them; expected train/<class>/<image>"):
        open_labelled(tree(tmp_path, "train/1.jpg", "val/2.jpg"))


def test_where_nothing_says_a_split_one_in_ten_of_each_class_is_held_out(tmp_path: Path) -> None:
    """A hash of each path alone leaves a class of ten images with none in one case of three."""
    sizes = {"roof": 100, "road": 60, "river": 10, "reef": 5, "ruin": 3}
    images = open_labelled(tree(tmp_path, *(f"{kind}/{i}.jpg" for kind, size in sizes.items() for i in range(size))))
    assert not images.said
    val = Counter(images.of_split("val").classes)
    assert val == {"roof": 10, "road": 6, "river": 1, "reef": 1}
    assert len(images.of_split("val")) + len(images.of_split("train")) == len(images)
    assert open_labelled(tmp_path).splits == images.splits


def test_a_table_of_splits_goes_before_the_hash(tmp_path: Path) -> None:
    tree(tmp_path, "roof/1.jpg", "roof/2.jpg", "road/3.jpg")
    (tmp_path / "splits.csv").write_text("path,split\nroof/1.jpg,Valid\nroof/2.jpg,train\nroad/3.jpg,fold7\n")
    assert splits(tmp_path) == {"roof/1.jpg": "val", "roof/2.jpg": "train", "road/3.jpg": "fold7"}
    with pytest.raises(DataRefused, match="no split 'test'; its splits are fold7, train, val"):
        open_labelled(tmp_path, "test")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "splits.csv",
            "path,split\nimages/roof/1.jpg,val\n",
            r"splits\.csv lists 1 files that do not exist, .* images/roof",
        ),
        ("splits.csv", "file,split\nroof/1.jpg,val\n", r"splits\.csv has no column 'path'; it has file, split"),
        ("splits.csv", "path|split\nroof/1.jpg|val\n", r"splits\.csv has no column 'path'; it has path\|split"),
        ("splits.csv", "", r"splits\.csv has no column 'path'; it has no rows"),
        ("objects.csv", "path,car\nroof/1.jpg,many\n", r"objects\.csv has a cell that is neither 0 nor 1: .*'many'"),
        ("objects.csv", "path,car,ship\nroof/1.jpg,1\n", r"objects\.csv has a cell that is neither 0 nor 1"),
    ],
)
def test_a_table_beside_the_images_that_cannot_be_used_says_why(tmp_path: Path, name: str, text: str, says: str) -> None:
    """Otherwise, a table that matches no file would silently put every image into training."""
    tree(tmp_path, "roof/1.jpg", "road/2.jpg")
    (tmp_path / name).write_text(text)
    with pytest.raises(DataRefused, match=says):
        open_labelled(tmp_path)


def test_what_a_desktop_and_a_notebook_leave_behind_are_no_images(tmp_path: Path) -> None:
    files = ("roof/1.jpg", "roof/._1.jpg", "__MACOSX/roof/._1.jpg", ".ipynb_checkpoints/1-checkpoint.jpg", "road/2.jpg")
    assert open_labelled(tree(tmp_path / "set", *files)).files == ("road/2.jpg", "roof/1.jpg")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in files:
            archive.writestr(file, b"an image")
    assert open_labelled(tmp_path / "set.zip").files == ("road/2.jpg", "roof/1.jpg")


def test_a_file_of_a_zip_that_cannot_be_read_is_empty_and_the_others_are_not(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in ("road/1.jpg", "roof/2.jpg"):
            archive.writestr(file, b"an image of " + file.encode())
    damaged = (tmp_path / "set.zip").read_bytes().replace(b"an image of road", b"an image of toad")  # wrong checksum
    (tmp_path / "set.zip").write_bytes(damaged)
    images = open_labelled(tmp_path / "set.zip")
    assert list(images.tree.read(images.files)) == [b"", b"an image of roof/2.jpg"]
