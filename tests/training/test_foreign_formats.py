"""Data sets in the formats of other libraries, written by those libraries and read back as own data."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from spatialnet_edge.core.errors import DataRefused, MissingExtra, UsageError
from spatialnet_edge.core.spec import RGB, Multiclass, Regression
from spatialnet_training.data.custom_dataset import load_own
from spatialnet_training.data.dataset_options import DEFAULTS, DatasetOptions
from spatialnet_training.data.dataset_record import open_record, write_record
from spatialnet_training.data.labelled_dataset import open_labelled
from spatialnet_training.networks.timm_backbone import import_timm

COLOURS = {"farm": (200, 180, 40), "forest": (20, 90, 30), "water": (10, 30, 160)}


def picture(kind: str, index: int) -> NDArray[np.uint8]:
    """RGB of one class, each image a little different."""
    rng = np.random.default_rng([index, *kind.encode()])
    return np.clip(np.array(COLOURS[kind]) + rng.integers(-6, 7, (24, 24, 3)), 0, 255).astype(np.uint8)


def png(image: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def colours_fit(path: Path, options: DatasetOptions = DEFAULTS, head: str = "label") -> None:
    """Every image that is loaded has the colour of its label, in training and in validation."""
    data = load_own(path, 64, options=options)
    found = next(each for each in data.heads if each.name == head)
    assert isinstance(found, Multiclass)
    assert data.val is not None
    assert not data.broken
    for samples in (data.train, data.holdout, data.val):
        assert len(samples)
        for image, index in zip(samples.images, samples.targets[head].tolist(), strict=True):
            np.testing.assert_allclose(image.mean(axis=(0, 1)), COLOURS[found.labels[index]], atol=4)


def hugging_face(folder: Path, splits: bool) -> Path:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(COLOURS)),
            "height_m": datasets.Value("float32"),
            "tags": datasets.Sequence(datasets.Value("string")),
        }
    )

    def part(count: int) -> object:
        kinds = [kind for kind in COLOURS for _ in range(count)]
        return datasets.Dataset.from_dict(
            {
                "image": [{"bytes": png(picture(kind, index)), "path": None} for index, kind in enumerate(kinds)],
                "label": [list(COLOURS).index(kind) for kind in kinds],
                "height_m": [index + 0.5 for index in range(len(kinds))],
                "tags": [["a"] for _ in kinds],
            },
            features=features,
        )

    saved = datasets.DatasetDict({"train": part(12), "validation": part(4)}) if splits else part(16)
    saved.save_to_disk(str(folder))
    return folder


@pytest.mark.parametrize("splits", [True, False])
def test_a_saved_hugging_face_data_set(tmp_path: Path, splits: bool) -> None:
    path = hugging_face(tmp_path / "saved", splits)
    colours_fit(path, DatasetOptions(ignore=("height_m",)))
    images = open_labelled(path)
    assert images.said is splits
    assert len(images) == 48
    if splits:
        assert images.splits.count("val") == 12
    assert any("tags" in note for note in images.notes)
    data = load_own(path, 64)
    assert next(head for head in data.heads if head.name == "height_m") == Regression(
        name="height_m", unit="height_m", low=0.0, high=35.5 if splits else 47.5
    )


def test_a_run_on_another_librarys_data_is_read_again_by_its_record(tmp_path: Path) -> None:
    path = hugging_face(tmp_path / "saved", splits=True)
    images = open_labelled(path, options=DatasetOptions(ignore=("height_m",)))
    (tmp_path / "run").mkdir()
    again = open_record(write_record(tmp_path / "run", path, images))
    assert (again.files, again.splits, again.columns) == (images.files, images.splits, images.columns)


def test_a_hugging_face_data_set_without_images_is_refused(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(str(tmp_path / "text"))
    with pytest.raises(DataRefused, match="0 columns of images among text"):
        open_labelled(tmp_path / "text")
    (tmp_path / "text" / "state.json").write_text("{")
    with pytest.raises(DataRefused, match="the library datasets cannot read it"):
        open_labelled(tmp_path / "text")


def shard(path: Path, count: int, first: int = 0, labels: str = "cls") -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(path)) as writer:
        for index in range(first, first + count):
            for number, kind in enumerate(COLOURS):
                label = (
                    {"cls": number} if labels == "cls" else {"json": {"label": kind, "box": [1, 2], "site": f"s{index // 4}"}}
                )
                writer.write({"__key__": f"{kind}{index:04d}", "png": png(picture(kind, index)), **label})


def test_webdataset_shards_with_splits_in_their_names(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for number in range(2):
        shard(tmp_path / "shards" / f"train-{number:04d}.tar", 6, 6 * number, "json")
    shard(tmp_path / "shards" / "val-0000.tar", 4, 100, "json")
    colours_fit(tmp_path / "shards", DatasetOptions(ignore=("site",)))
    images = open_labelled(tmp_path / "shards")
    assert images.splits.count("val") == 12
    wanted = [images.files[row] for row in (40, 3, 20, 2)]  # back and forth between the shards
    for file, encoded in zip(wanted, images.tree.read(wanted), strict=True):
        decoded = images.decode(file, encoded, (RGB,))
        kind = images.columns[file]["label"]
        assert decoded is not None
        np.testing.assert_allclose(decoded.mean(axis=(0, 1)), COLOURS[kind], atol=4)


def test_one_tar_file_has_classes_as_numbers_and_is_held_out_by_hash(tmp_path: Path) -> None:
    shard(tmp_path / "all.tar", 16)
    images = open_labelled(tmp_path / "all.tar")
    assert not images.said
    data = load_own(tmp_path / "all.tar", 64)
    assert data.heads == (Multiclass(name="label", labels=("0", "1", "2")),)
    grouped = open_labelled(tmp_path / "all.tar", options=DatasetOptions(group=r"(\d{3})\d"))
    assert len(set(grouped.groups)) == 2


def test_shards_that_are_none_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    (tmp_path / "bad.tar").write_bytes(b"no tar file at all" * 100)
    with pytest.raises(DataRefused, match="webdataset cannot read it"):
        open_labelled(tmp_path / "bad.tar")
    (tmp_path / "mixed").mkdir()
    shard(tmp_path / "mixed" / "train-0.tar", 2)
    shard(tmp_path / "mixed" / "more-0.tar", 2)
    with pytest.raises(DataRefused, match=r"more-0\.tar names no split"):
        open_labelled(tmp_path / "mixed")


def scene(folder: Path, crs: str, west: float, north: float, step: float, dtype: str = "uint8") -> None:
    """A raster of 256×256 pixels: farm in the left third, forest in the middle, water to the right."""
    rasterio = pytest.importorskip("rasterio")
    image = np.concatenate([picture(kind, 0) for kind in COLOURS], axis=1)[:1]
    levels = np.repeat(np.repeat(image, 256, axis=0)[:, :1], 256, axis=1)
    for number, kind in enumerate(COLOURS):
        levels[:, 96 * number : 96 * (number + 1)] = COLOURS[kind]
    values = levels.astype(dtype) * (16 if dtype == "uint16" else 1)
    folder.mkdir(exist_ok=True)
    transform = rasterio.transform.from_origin(west, north, step, step)
    profile = {"driver": "GTiff", "width": 256, "height": 256, "count": 3, "dtype": dtype, "crs": crs, "transform": transform}
    with rasterio.open(folder / "scene.tif", "w", **profile, photometric="RGB") as raster:
        raster.write(values.transpose(2, 0, 1))


def fields(path: Path, west: float, north: float, step: float, crs: str) -> Path:
    """Polygons of the three classes, by pixels of `scene`, as GeoJSON or whatever the suffix says."""
    pyogrio = pytest.importorskip("pyogrio")
    shapely = pytest.importorskip("shapely")
    boxes = [
        shapely.box(west + 96 * i * step, north - 256 * step, west + min(96 * (i + 1), 256) * step, north) for i in range(3)
    ]
    pyogrio.raw.write(
        path,
        np.array([shapely.to_wkb(box) for box in boxes], object),
        [np.array(list(COLOURS), object), np.arange(3)],
        ["kind", "id"],
        geometry_type="Polygon",
        crs=crs,
    )
    return path


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg"])
def test_polygons_over_a_raster_give_tiles_at_a_sampling_distance(tmp_path: Path, suffix: str) -> None:
    place = (500_000.0, 5_600_000.0, 0.5)
    scene(tmp_path / "site", "EPSG:32631", *place)
    path = fields(tmp_path / "site" / f"fields{suffix}", *place, "EPSG:32631")
    options = DatasetOptions(tile=16)
    images = open_labelled(path, options=options)
    assert len(images) == 256  # 16×16 tiles, 96 pixels of each class are whole tiles
    assert images.column_names == ("kind",)  # numbers are no classes unless they are named
    colours_fit(path, options, "kind")
    coarse = open_labelled(path, options=DatasetOptions(tile=16, metres_per_pixel=1.0))
    assert len(coarse) == 64
    assert any("1 m a pixel" in note for note in coarse.notes)


def test_an_area_is_on_one_side_of_the_split(tmp_path: Path) -> None:
    place = (500_000.0, 5_600_000.0, 1.0)
    scene(tmp_path / "site", "EPSG:32631", *place)
    images = open_labelled(fields(tmp_path / "site" / "f.geojson", *place, "EPSG:32631"), options=DatasetOptions(tile=8))
    by_area: dict[str, set[str]] = {}
    for group, split in zip(images.groups, images.splits, strict=True):
        by_area.setdefault(group, set()).add(split)
    assert len(by_area) > 10
    assert all(len(splits) == 1 for splits in by_area.values())
    assert len(set(images.splits)) == 2
    assert len(images) / len(by_area) > 10


def test_a_raster_in_degrees_is_cut_in_metres_and_deep_pixels_need_a_range(tmp_path: Path) -> None:
    place = (8.0, 50.0, 1e-5)  # about a metre to the north, and 0.7 to the east
    scene(tmp_path / "site", "EPSG:4326", *place, dtype="uint16")
    path = fields(tmp_path / "site" / "f.geojson", *place, "EPSG:4326")
    options = DatasetOptions(tile=16, metres_per_pixel=1.0)
    with pytest.raises(DataRefused, match="--range"):
        load_own(path, 64, options=options)
    data = load_own(path, 64, options=DatasetOptions(tile=16, metres_per_pixel=1.0, value_range=(0, 4080)))
    (head,) = data.heads
    assert isinstance(head, Multiclass)
    assert head.labels == tuple(COLOURS)
    pure = 0
    for image, index in zip(data.train.images, data.train.targets["kind"].tolist(), strict=True):
        pure += bool(np.allclose(image.mean(axis=(0, 1)), COLOURS[head.labels[index]], atol=4))
    assert pure > 0.7 * len(data.train)  # the others lie on a border
    assert (
        any(each.reason == "a tile with pixels without data" for each in open_labelled(path, options=options).unused) or pure
    )


def test_polygons_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    place = (500_000.0, 5_600_000.0, 0.5)
    path = fields(tmp_path / "f.geojson", *place, "EPSG:32631")
    with pytest.raises(DataRefused, match="no raster beside it"):
        open_labelled(path)
    scene(tmp_path / "elsewhere", "EPSG:32631", 700_000.0, 5_600_000.0, 0.5)
    with pytest.raises(DataRefused, match="covered by half by a polygon"):
        open_labelled(path)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    with pytest.raises(DataRefused, match="0 polygons"):
        open_labelled(path)


def skip_without_torchgeo() -> None:
    import_timm()  # a CPU-only torch needs help to import torchvision
    pytest.importorskip("torchgeo.datasets")


def test_a_torchgeo_data_set(tmp_path: Path) -> None:
    skip_without_torchgeo()
    root = tmp_path / "UCMerced_LandUse" / "Images"
    names = ["agricultural", "airplane", "beach"]
    listed: list[str] = []
    for name, kind in zip(names, COLOURS, strict=True):
        (root / name).mkdir(parents=True)
        for index in range(20):
            cv2.imwrite(str(root / name / f"{name}{index:02d}.tif"), picture(kind, index)[..., ::-1])
            listed.append(f"{name}{index:02d}.tif")
    for split, chosen in (("train", slice(0, None, 2)), ("val", slice(1, None, 4)), ("test", slice(3, None, 4))):
        (tmp_path / f"uc_merced-{split}.txt").write_text("\n".join(listed[chosen]) + "\n")
    data = load_own(Path(f"torchgeo:UCMerced?root={tmp_path}"), 64)
    (head,) = data.heads
    assert isinstance(head, Multiclass)
    assert set(head.labels) == set(names)
    assert data.unseen == {"val": 15, "test": 15}
    own = dict(zip(names, COLOURS.values(), strict=True))
    for image, index in zip(data.train.images, data.train.targets["label"].tolist(), strict=True):
        np.testing.assert_allclose(image.mean(axis=(0, 1)), own[head.labels[index]], atol=4)


@pytest.mark.parametrize(
    ("address", "error", "says"),
    [
        ("torchgeo:UCMerced", UsageError, "names no folder"),
        ("torchgeo:NoSuchSet?root=x", UsageError, "no data set of separate images called 'NoSuchSet'"),
        ("torchgeo:UCMerced?root=nowhere", DataRefused, "torchgeo cannot open it"),
    ],
)
def test_a_torchgeo_address_that_is_wrong_says_why(address: str, error: type[Exception], says: str) -> None:
    if "root" in address:
        skip_without_torchgeo()
    with pytest.raises(error, match=says):
        open_labelled(Path(address))


@pytest.mark.parametrize(
    ("library", "extra", "make"),
    [
        ("datasets", "huggingface", "saved"),
        ("webdataset.tariterators", "webdataset", "all.tar"),
        ("torchgeo.datasets", "torchgeo", "torchgeo:UCMerced?root=x"),
        ("pyogrio.raw", "polygons", "f.geojson"),
    ],
)
def test_a_library_that_is_absent_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, extra: str, make: str
) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text("{}")
    for name in ("all.tar", "f.geojson"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, library, None)  # as if it were not installed
    path = Path(make) if ":" in make else tmp_path / make
    with pytest.raises(MissingExtra, match=rf"\[{extra}\]"):
        open_labelled(path)
