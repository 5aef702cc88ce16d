"""Checkpoints: writing, reading, refusals, and that the shipped ones equal the shipped models."""

import json
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from onnx import numpy_helper

from spatialnet_edge.api import load
from spatialnet_edge.bundle.manifest import Provenance
from spatialnet_edge.bundle.reader import MODEL, open_bundle
from spatialnet_edge.core.errors import Refused, UsageError
from spatialnet_edge.core.spec import RGB, InputSpec, ModelSpec, Multiclass, Regression
from spatialnet_optimize.evaluation.metrics import agreement, decode_images
from spatialnet_optimize.evaluation.metrics import predict as infer_all
from spatialnet_optimize.export.graph import reference
from spatialnet_training.data.bands import groups_named
from spatialnet_training.data.datasets import load_unlabelled
from spatialnet_training.data.labelled_dataset import open_labelled
from spatialnet_training.data.samples import STORED_SIDE
from spatialnet_training.data.taxonomy import OBJECTS, load_taxonomy
from spatialnet_training.loop.prediction import predict
from spatialnet_training.losses.multitask import UNLABELLED
from spatialnet_training.losses.temperature_scaling import fit_temperature
from spatialnet_training.networks.checkpoint import HALF_FROM, load_network, load_spec, read, save_network
from spatialnet_training.networks.checkpoint_paths import NETWORK, WEIGHTS, located, run_name
from spatialnet_training.networks.model import SpatialNet
from training_fixtures import SOURCES

HEADS = (Multiclass(name="a", labels=("x", "y")),)


def test_a_checkpoint_round_trips(tmp_path: Path) -> None:
    groups = groups_named(("rgb", "synthetic_thermal"))
    network = SpatialNet("timm:vit_tiny_patch16_224", {"a": 2}, 32, groups)
    spec = ModelSpec(name="m", input=InputSpec(height=32, width=32, groups=groups), heads=HEADS)
    origin = Provenance(created="today", tool="tests", source="nothing")
    save_network(tmp_path / "run", network, "timm:vit_tiny_patch16_224", spec, origin)
    loaded, contract, provenance = load_network(tmp_path / "run")
    assert (contract, provenance) == (spec, origin)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 4, 32, 32), dtype=np.float32))
    torch.testing.assert_close(loaded(x)["a"], network.eval()(x)["a"])


def test_a_checkpoint_has_the_name_of_its_run_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flight").mkdir()
    monkeypatch.chdir(tmp_path / "flight")
    for path in (".", "../flight", "network.pt", "runs/flight/network.pt", "model.safetensors"):
        assert run_name(Path(path).resolve()) == run_name(Path(path)) == "flight"
    assert run_name(Path("weights/student-128.pt")) == "student-128"


MODELS = {"spatialnet-s": "student", "spatialnet-m": "student-160", "spatialnet-ms": "spatialnet-ms"}
"""The shipped checkpoints and their bundles."""


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_checkpoint_is_the_shipped_model(name: str) -> None:
    """Its large matrices are rounded to float16; every tensor is otherwise the bundle's own, and so is every answer that is not
    within rounding of a threshold. The shipped samples are held out of all training."""
    network, spec, _ = load_network(WEIGHTS / name)
    bundle = open_bundle(f"builtin:{MODELS[name]}")
    theirs = {head.name: head for head in bundle.spec.heads}
    assert spec.name == bundle.spec.name == name
    assert spec.input == bundle.spec.input
    assert all(theirs[head.name] == head for head in spec.heads)
    images = np.concatenate([decode_images(open_labelled(path), spec.input).images for path in SOURCES.values()])
    with load(f"builtin:{MODELS[name]}") as model:
        expected = infer_all(model.opened.engine, images)
    found = reference(network, spec, images)
    assert agreement(spec, found, expected) >= 0.999  # torch and ONNX Runtime differ by 1e-4, which can cross a threshold
    for head in spec.heads:
        scale = 1 if not isinstance(head, Regression) else head.high - head.low
        np.testing.assert_allclose(found[head.name] / scale, expected[head.name] / scale, atol=4e-3, err_msg=head.name)


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_checkpoint_has_the_bundles_tensors(name: str) -> None:
    """The exporter keeps some tensors as they are and folds others; each that it keeps is the bundle's, rounded or not."""
    graph = onnx.load_from_string(open_bundle(f"builtin:{MODELS[name]}").read(MODEL))
    theirs: dict[tuple[int, ...], list[np.ndarray]] = {}
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        for each in (values, values.T) if values.ndim == 2 else (values,):
            theirs.setdefault(each.shape, []).append(each)
    heads = {key: value for key, value in read(WEIGHTS / name).weights.items() if key.startswith("heads.")}
    assert len(heads) == 2 * len(load_spec(WEIGHTS / name).heads)
    for key, value in heads.items():
        own = value.float().numpy()
        close = [np.allclose(own, each, rtol=2**-10, atol=1e-6) for each in theirs[own.shape]]
        assert any(close), key


def test_large_matrices_may_be_stored_as_float16(tmp_path: Path) -> None:
    network = SpatialNet("student-1m", {"a": 2}, 32)
    spec = ModelSpec(name="m", input=InputSpec(height=32, width=32, groups=(RGB,)), heads=HEADS)
    origin = Provenance(created="", tool="", source="")
    for half in (False, True):
        save_network(tmp_path / str(half), network, "student-1m", spec, origin, half=half)
    whole, rounded = (read(tmp_path / str(half)).weights for half in (False, True))
    assert {value.dtype for value in whole.values()} == {torch.float32, torch.int64}
    assert all((value.dtype == torch.float16) == (value.ndim > 1 and value.numel() >= HALF_FROM) for value in rounded.values())
    assert (tmp_path / "True" / NETWORK).stat().st_size < 0.6 * (tmp_path / "False" / NETWORK).stat().st_size
    assert all(value.dtype != torch.float16 for value in load_network(tmp_path / "True")[0].state_dict().values())


def test_a_checkpoint_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    network = SpatialNet("student-1m", {"a": 2}, 32)
    spec = ModelSpec(name="m", input=InputSpec(height=32, width=32, groups=(RGB,)), heads=HEADS)
    origin = Provenance(created="today", tool="", source="an earlier version")
    state = {
        "format": "spatialnet-network-2",
        "backbone": "student-1m",
        "spec": msgspec.json.encode(spec).decode(),
        "provenance": msgspec.json.encode(origin).decode(),
        "weights": network.state_dict(),
    }
    torch.save(state, tmp_path / "network.pt")
    loaded, contract, provenance = load_network(located(str(tmp_path / "network.pt")))
    assert (contract, provenance) == (spec, origin)
    assert load_spec(tmp_path / "network.pt") == spec
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), loaded.state_dict().values(), strict=True))


def test_other_tools_read_a_checkpoint(tmp_path: Path) -> None:
    """By safetensors and JSON alone, as tools of a model hub do."""
    network = SpatialNet("student-1m", {"a": 2}, 32)
    spec = ModelSpec(name="m", input=InputSpec(height=32, width=32, groups=(RGB,)), heads=HEADS)
    save_network(tmp_path, network, "student-1m", spec, Provenance(created="", tool="", source="", licence="MIT"))
    with safetensors.safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(network.state_dict())
        assert file.metadata() == {"format": "pt"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "spatialnet"
    assert config["provenance"]["licence"] == "MIT"


def test_a_former_name_is_the_same_checkpoint() -> None:
    assert located("student") == located("spatialnet-s") == WEIGHTS / "spatialnet-s"
    assert located("student-160") == located("spatialnet-m") == WEIGHTS / "spatialnet-m"
    with pytest.raises(UsageError, match=r"no such checkpoint; .* \(spatialnet-m, spatialnet-ms, spatialnet-s\)"):
        located("spatialnet-xl")


@pytest.mark.parametrize("name", ["spatialnet-s", "spatialnet-m"])
def test_the_shipped_students_predict_the_objects_of_satellite_classes(name: str) -> None:
    """These images have no object labels: a head trained only on aerial images would give arbitrary outputs."""
    network, spec, _ = load_network(WEIGHTS / name)
    said = predict(network, load_unlabelled(SOURCES["eurosat"], STORED_SIDE), spec.input.height)
    logits = said["objects"]
    objects, kinds = load_taxonomy().objects, open_labelled(SOURCES["eurosat"]).classes
    known = torch.tensor([[objects["eurosat", kind].get(label, UNLABELLED) for label in OBJECTS] for kind in kinds])
    assert (logits[known == 1] > 0).float().mean() > 0.95
    assert (logits[known == 0] > 0).float().mean() < 0.01
    count, shown = len(OBJECTS) * said["object_kinds"].sigmoid()[:, 0], (known == 1).sum(dim=1)
    certain, possible = count > shown - 0.5, count < (known != 0).sum(dim=1)
    assert (certain & possible).float().mean() > 0.97
    assert (count - (logits > 0).sum(dim=1)).abs().mean() < 1


@pytest.mark.parametrize("count", [8, 30])
@pytest.mark.parametrize("data_set", ["eurosat", "ucmerced"])
def test_calibration_on_few_images_holds_on_other_images(data_set: str, count: int) -> None:
    """Calibrate on as many real outputs as a small folder holds out, and evaluate the probabilities on the others."""
    network, spec, _ = load_network(WEIGHTS / "spatialnet-s")
    logits = predict(network, load_unlabelled(SOURCES[data_set], STORED_SIDE), spec.input.height)[f"land_use_{data_set}"]
    (labels,) = (head.labels for head in spec.heads if isinstance(head, Multiclass) and head.name == f"land_use_{data_set}")
    target = torch.tensor([labels.index(name) for name in open_labelled(SOURCES[data_set]).classes])
    chance = torch.Generator().manual_seed(0)

    def losses() -> list[float]:
        order = torch.randperm(len(target), generator=chance)
        few, others = order[:count], order[count:]
        found = [fit_temperature(logits[few], target[few], cautious) for cautious in (True, False)]
        return [float(F.cross_entropy(logits[others] / each, target[others])) for each in found]

    cautious, plain = np.array([losses() for _ in range(20)]).T
    assert cautious.mean() < 0.92 * plain.mean()
    assert cautious.max() < 0.75 * plain.max()
    assert cautious.max() < 0.25


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x02c__builtin__\neval\n."])
def test_an_invalid_checkpoint_is_refused_and_runs_no_code(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "network.pt").write_bytes(content)
    with pytest.raises(Refused, match="not a checkpoint, or not safe to read"):
        load_network(tmp_path / "network.pt")
    torch.save({"weights": {}}, tmp_path / "other.pt")
    with pytest.raises(Refused, match="not a checkpoint of an earlier version"):
        load_network(tmp_path / "other.pt")
    (tmp_path / NETWORK).write_bytes(content)
    with pytest.raises(
        Refused, match=r"config\.json: No such file or directory; a checkpoint is a folder with model\.safetensors"
    ):
        load_network(tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(Refused, match=r"config\.json: not the configuration of a checkpoint"):
        load_network(tmp_path / NETWORK)
    (tmp_path / "config.json").write_bytes((WEIGHTS / "spatialnet-s" / "config.json").read_bytes())
    with pytest.raises(Refused, match=r"model\.safetensors: no readable weights"):
        load_network(tmp_path)
    (tmp_path / NETWORK).write_bytes(safetensors.torch.save({"a": torch.zeros(1)}))
    with pytest.raises(Refused, match=r"its weights do not match its config\.json"):
        load_network(tmp_path)
