"""A network of five groups of bands, all the way: trained, exported, built, run on three rasters, evaluated, described."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.cli.app import app
from spatialnet_edge.core.bands import present_groups
from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.sources.demo_scene import write_demo_scene
from spatialnet_optimize.compilers.plan_builder import RTX, build_plan
from spatialnet_optimize.report.model_card import modality_chapter
from spatialnet_training.config import TrainingStage
from spatialnet_training.data.bands import groups_named
from spatialnet_training.data.datasets import load_published
from spatialnet_training.loop.training_run import train
from training_fixtures import TINY_RUN, write_set

GROUPS = ("rgb", "nir", "swir", "elevation", "sar")


@dataclass(frozen=True, slots=True)
class Trained:
    """A checkpoint, the bundle that was built from it, and the sets under the names of the published ones."""

    run: Path
    bundle: Path
    sets: Path


def command(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, (words, done.output, done.exception)
    return done.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Trained:
    folder = tmp_path_factory.mktemp("multiband")
    classes = {
        "burned": ("s2_burned_area.zip", {"Burned": 800, "Unburned": 2500}, 5),
        "flood": ("s1_flood.zip", {"Land": -800, "Water": -2200, "Mixed": -1500}, 2),
        "hls": ("hls_landcover.zip", {"Forest": 500, "Water": 100, "Bare": 3000}, 8),
    }
    for name, (file, levels, bands) in classes.items():
        made = write_set(folder, name, levels, bands)
        shutil.make_archive(str(folder / file.removesuffix(".zip")), "zip", made)
    shutil.copy(data_root / "eurosat.zip", folder / "eurosat_rgb.zip")
    files = {name: file for name, (file, _, _) in classes.items()} | {"eurosat": "eurosat_rgb.zip"}
    config = replace(
        TINY_RUN,
        name="spatialnet-ms",
        groups=GROUPS,
        group_dropout=0.2,
        data=files,
        stages=(TrainingStage(size=32, epochs=1),),
    )
    data = load_published({name: folder / file for name, file in files.items()}, 64, groups_named(GROUPS))
    run = train(config, data, folder / "run", "test").parent
    command("export", run, "-o", folder / "portable.snb", "--golden", folder / "s2_burned_area.zip", "--golden",
            folder / "s1_flood.zip", "--golden", folder / "hls_landcover.zip")  # fmt: skip
    command("build", folder / "portable.snb", "-o", folder / "ms.snb", "--labelled", folder / "s2_burned_area.zip", "--labelled",
            folder / "s1_flood.zip", "--budget", "100", "--precision", "int8", "--no-cache")  # fmt: skip
    return Trained(run, folder / "ms.snb", folder)


def test_golden_frames_test_every_group_and_its_absence(trained: Trained) -> None:
    frames, _ = open_bundle(trained.bundle).golden()
    present = present_groups(frames, groups_named(GROUPS))
    assert present.any(axis=0).all()
    assert (present == 0).any(axis=0).all()


def test_the_graph_finds_out_for_itself_which_groups_are_there(trained: Trained) -> None:
    model = onnx.load_from_string(open_bundle(trained.sets / "portable.snb").read("model.onnx"))
    kinds = [node.op_type for node in model.graph.node]
    assert "ReduceMax" in kinds
    assert kinds.count("Where") >= len(GROUPS)
    assert [each.name for each in model.graph.input] == ["image"]
    ranges = json.loads({each.key: each.value for each in model.metadata_props}["input"])["ranges"]
    assert ranges["vv"] == {"unit": "dB", "low": -30.0, "high": 5.0}


def test_nvidias_builder_takes_the_graph_with_static_shapes(trained: Trained) -> None:
    pytest.importorskip("tensorrt_rtx")
    bundle = open_bundle(trained.sets / "portable.snb")
    assert build_plan(RTX, bundle.read("model.onnx"), bundle.spec.input.shape).layers > 20


def test_a_scene_of_three_rasters_is_answered_and_the_missing_sensor_named(trained: Trained, tmp_path: Path) -> None:
    paths = write_demo_scene(tmp_path, side=128)
    results = tmp_path / "results.jsonl"
    output = command("run", trained.bundle, f"scene:{'+'.join(map(str, paths))}?tile=32", "--json", results)
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 16
    assert {tuple(line.get("absent", ())) for line in lines} == {(), ("sar",)}
    assert [line.get("absent") for line in lines].count(["sar"]) == 4  # the eastern quarter
    assert " ".join(output.split()).count("no data for sar") == 1
    assert {"land_cover", "burned", "flood", "land_use"} <= lines[0]["predictions"].keys()
    alone = [json.loads(line) for line in run_lines(trained.bundle, paths[1], tmp_path / "radar.jsonl")]
    assert {tuple(line["absent"]) for line in alone} == {("rgb", "nir", "swir", "elevation")}


def run_lines(bundle: Path, raster: Path, results: Path) -> list[str]:
    command("run", bundle, f"scene:{raster}?tile=32", "--json", results)
    return results.read_text(encoding="utf-8").splitlines()


def test_measured_sets_are_evaluated_and_described(trained: Trained, tmp_path: Path) -> None:
    output = command(
        "evaluate", trained.bundle, trained.sets / "s2_burned_area.zip", "--split", "val", "--json", tmp_path / "e.json"
    )
    assert "burned" in output
    assert [each["head"] for each in json.loads((tmp_path / "e.json").read_text())["heads"]] == ["burned"]
    command("card", trained.sets / "portable.snb", "--data-root", trained.sets, "-o", tmp_path / "card.md")
    text = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert "| flood | `flood` |" in text
    assert "- `sar`: vv -30 to 5 dB, vh -35 to 0 dB" in text


def test_chips_that_name_their_bands_are_evaluated(trained: Trained, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    place = rasterio.transform.from_origin(500_000, 5_200_000, 10, 10)
    shape = {
        "driver": "GTiff",
        "width": 24,
        "height": 24,
        "count": 5,
        "dtype": "int16",
        "crs": "EPSG:32633",
        "transform": place,
    }
    for kind, level in (("Burned", 800), ("Unburned", 2500)):
        (tmp_path / "chips" / kind).mkdir(parents=True)
        for index in range(4):
            with rasterio.open(tmp_path / "chips" / kind / f"{index}.tif", "w", **shape) as raster:
                raster.write(np.full((5, 24, 24), level + index, np.int16))
                raster.descriptions = ("B02", "B03", "B04", "B08", "B12")
    command("evaluate", trained.bundle, tmp_path / "chips", "--json", tmp_path / "e.json")
    found = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    assert [(each["head"], each["images"]) for each in found["heads"]] == [("burned", 8)]
    assert not found["broken"]


def test_what_each_modality_is_worth_resumes(trained: Trained, tmp_path: Path) -> None:
    words = ["modalities", trained.run, "--data-root", trained.sets, "--data-set", "flood", "--parts", "vv,vh", "--train-alone",
             "--repeats", "2", "--output", tmp_path / "runs", "--json", tmp_path / "m.json", "--plot", tmp_path / "m.png",
             "--set", "start=", "--set", "backbone=student-1m", "--set", "stages=[{size=32, epochs=1}]", "--set", "epoch_images=32",
             "--set", "batch=16"]  # fmt: skip
    command(*words)
    found = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert [*found["trained_alone"]] == ["vv+vh", "vv", "vh"]
    assert len(found["trained_alone"]["vv"]["seeds"]) == 2
    assert found["random_forest"]["vv"]["mean"] == 1.0  # brightness alone tells these classes apart
    assert (tmp_path / "m.png").stat().st_size > 1000
    card_text = modality_chapter(tmp_path / "m.json")
    assert "## Bands of flood: head `flood`, 12 images of `val`" in card_text
    assert card_text.count("\n| v") == 3 + 2  # accuracies and gains
    with pytest.raises(DataRefused, match="not the figures of 'modalities --json'"):
        modality_chapter(tmp_path / "m.png")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.json")}
    command(*words)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.json")} == stamps
