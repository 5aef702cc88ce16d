"""Model cards as a model hub reads them, by the hub's own library."""

import json

import pytest
from huggingface_hub import ModelCard

from conftest import ROOT
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_optimize.report.hub_metadata import commercial_use, licence_fields, metadata_block
from spatialnet_training.networks.checkpoint_paths import NETWORK, WEIGHTS

CARDS = {"spatialnet-s": "student", "spatialnet-m": "student-160", "spatialnet-ms": "spatialnet-ms"}
MODELS = ROOT / "sdk/spatialnet_edge/models"


@pytest.mark.parametrize("name", CARDS)
def test_a_shipped_card_is_a_hubs_card_and_has_the_measured_figures(name: str) -> None:
    data = ModelCard.load(MODELS / f"{CARDS[name]}.md").data
    assert (data.model_name, data.library_name, data.license) == (name, "spatialnet-edge", "other")
    assert data.license_name == "apache-2.0-weights-trained-on-research-data"
    measured = json.loads((MODELS / f"{CARDS[name]}.json").read_text())["data_sets"]
    assert sorted(measured) == data.datasets
    shown = {(each.dataset_type, each.metric_name): each.metric_value for each in data.eval_results}
    for data_set, heads in measured.items():
        own = next(each for each in heads if each["head"] == f"land_use_{data_set}" or len(heads) == 1)
        assert shown[data_set, f"accuracy of {own['head']}"] == pytest.approx(own["accuracy"], abs=1e-4)


@pytest.mark.parametrize("name", CARDS)
def test_a_shipped_card_answers_whether_it_may_be_used_commercially(name: str) -> None:
    licence = open_bundle(f"builtin:{name}").manifest.provenance.licence
    text = (MODELS / f"{CARDS[name]}.md").read_text(encoding="utf-8")
    assert f"## May I use it commercially?\n\n{commercial_use(licence)}\n" in text


def test_the_licence_determines_the_answer_on_commercial_use() -> None:
    free = "MIT; trained on EuroSAT (MIT)"
    assert licence_fields(free) == {"license": "mit"}
    assert "lawyer" not in commercial_use(free)
    assert "No weight comes from ImageNet" in commercial_use(free)
    made = "Apache-2.0; trained on AID (for research), textures (GPL-2.0-or-later), begun with ImageNet weights of X (MIT)"
    assert licence_fields(made)["license"] == "other"
    said = commercial_use(made)
    for part in ("AID", "lawyer", "textures (GPL-2.0-or-later)", "has begun with ImageNet weights of X (MIT)", "research"):
        assert part in said
    assert metadata_block("x", free, "val", {}).startswith("---\n")


@pytest.mark.parametrize("name", CARDS)
def test_a_shipped_checkpoint_is_laid_out_as_a_hubs_repository(name: str) -> None:
    assert {path.name for path in (WEIGHTS / name).iterdir()} == {"README.md", "config.json", NETWORK}
    assert ModelCard.load(WEIGHTS / name / "README.md").data.license == "other"
