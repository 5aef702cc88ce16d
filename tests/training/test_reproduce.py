"""A recipe from its TOML file to the bundle, by one command that resumes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import spatialnet_training
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.bundle.trust import Trust
from spatialnet_edge.cli.app import app
from spatialnet_edge.core.errors import UsageError
from spatialnet_optimize.reproduce.plan import Request, plan
from spatialnet_optimize.reproduce.recipe import read_recipe
from spatialnet_training.networks.checkpoint import load_network
from spatialnet_training.studies import known, known_pictures

RECIPES = sorted((Path(spatialnet_training.__file__).parent / "configs" / "recipes").glob("*.toml"))
COMMON = """
    "backbone=student-1m",
    "stages=[{size=32, epochs=1}]",
    "epoch_images=32",
    "batch=16",
    "compile=false",
    "precision=32-true",
"""
TINY_RECIPE = f"""
model = "tiny"
gpu = ["batch=8"]
[[runs]]
name = "teacher"
config = "studies/ablation"
set = [{COMMON}]
hours = 0.01
[[runs]]
name = "student"
config = "distillation"
set = [{COMMON} 'start=""', 'distillation.teachers=["$OUT/teacher"]']
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(known_pictures, "PER_KIND", 4)
    monkeypatch.setattr(known, "EPOCHS", 2)
    (tmp_path / "tiny.toml").write_text(TINY_RECIPE)
    return tmp_path / "tiny.toml"


def reproduce(recipe: Path, root: Path, *options: str) -> Result:
    arguments = ["reproduce", str(recipe), "--data-root", str(root), "--output", str(recipe.parent / "out"), *options]
    return CliRunner().invoke(app, arguments)


def test_a_tiny_recipe_from_data_to_bundle_and_a_second_start_does_nothing_again(recipe: Path, published_root: Path) -> None:
    shown = reproduce(recipe, published_root, "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert not (recipe.parent / "out").exists()
    for said in ("teacher", "student", "teach-known", "recalibrate", "export", "0.01 h", "not measured", "to do"):
        assert said in shown.output
    assert "seed=7" in "".join(reproduce(recipe, published_root, "--dry-run", "--set", "seed=7").output.split())
    done = reproduce(recipe, published_root)
    assert done.exit_code == 0, (done.output, done.exception)
    out = recipe.parent / "out"
    bundle = open_bundle(out / "tiny.snb", Trust(allow_unsigned=True))
    assert bundle.spec.known is not None
    network, _, provenance = load_network(out / "recalibrate")
    assert network.image_temperature is not None
    assert "distilled from teacher" in provenance.source
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    again = reproduce(recipe, published_root)
    assert again.exit_code == 0, again.output
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    (out / "tiny.snb").unlink()  # as after a stop in the last stage
    assert reproduce(recipe, published_root).exit_code == 0
    assert (out / "tiny.snb").exists()
    assert (out / "recalibrate" / "model.safetensors").stat().st_mtime_ns == before[out / "recalibrate" / "model.safetensors"]
    recipe.write_text(TINY_RECIPE.replace("epoch_images=32", "epoch_images=48"))
    other = reproduce(recipe, published_root)
    assert isinstance(other.exception, UsageError)
    assert "made by another recipe" in str(other.exception)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_every_shipped_recipe_is_valid(path: Path, profile: str, tmp_path: Path) -> None:
    recipe = read_recipe(path.stem)
    stages = plan(recipe, Request(tmp_path, tmp_path, profile, tmp_path / "weights.pth"))  # type: ignore[arg-type]
    runs = [stage for stage in stages if stage.config is not None]
    assert len(runs) <= 3
    assert len({stage.digest for stage in stages}) == len(stages)
    student = runs[-1].config
    assert student is not None
    assert student.distillation is not None
    assert student.start == ""
    assert [each.checkpoint for each in student.distillation.taught_by] == [str(run.output.parent) for run in runs[:-1]]
    assert student.degraded_share > 0
    assert student.compile == (profile == "gpu") or profile == "cpu"


def test_a_recipe_that_begins_with_weights_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give their file with --weights"):
        plan(read_recipe("spatialnet-s"), Request(tmp_path, tmp_path))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("model = 'x'\nruns = []", "at.*runs"),
        ("model = '../x'\n[[runs]]\nname='a'\nconfig='student'", "model"),
        ("model = 'x'\n[[runs]]\nname='a'\nconfig='student'\n[[runs]]\nname='a'\nconfig='student'", "one name"),
        ("model = 'x'\n" + "\n".join(f"[[runs]]\nname='a{i}'\nconfig='student'" for i in range(4)), "runs"),
    ],
)
def test_a_wrong_recipe_is_refused(text: str, error: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(UsageError, match=error):
        read_recipe(str(tmp_path / "wrong.toml"))


def test_an_unknown_recipe_names_those_that_are_shipped() -> None:
    with pytest.raises(UsageError, match="spatialnet-m, spatialnet-s"):
        read_recipe("resnet")
