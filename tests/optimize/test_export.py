"""From a network to the deployed graph, compared with torch on real images."""

import json
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from msgspec.structs import replace

from spatialnet_edge.bundle.manifest import Provenance
from spatialnet_edge.core.errors import BuildError
from spatialnet_edge.core.spec import RGB, InputSpec, ModelSpec, Multiclass, Multilabel, Regression
from spatialnet_edge.engines.registry import load_backend
from spatialnet_optimize.build.variants import prune
from spatialnet_optimize.export.from_checkpoint import export_checkpoint, golden_images
from spatialnet_optimize.export.graph import OPSET, PARITY, check_parity, export_onnx, reference
from spatialnet_optimize.export.metadata import described, with_metadata
from spatialnet_training.data.augmentation import normalise
from spatialnet_training.data.bands import groups_named
from spatialnet_training.networks.backbones import PRESETS
from spatialnet_training.networks.checkpoint import load_network, save_network
from spatialnet_training.networks.model import SpatialNet

torch.set_num_threads(1)

SPEC = ModelSpec(
    name="export test",
    input=InputSpec(height=64, width=64, groups=(RGB,)),
    heads=(
        Multiclass(name="land_use", labels=("a", "b", "c"), temperature=1.7),
        Multilabel(name="objects", labels=("p", "q"), thresholds=(0.5, 0.5), temperature=0.8),
        Regression(name="count", unit="ships", low=0, high=100),
    ),
)


@pytest.fixture(scope="module")
def network() -> SpatialNet:
    torch.manual_seed(0)
    network = SpatialNet("student-2m", {head.name: head.width for head in SPEC.heads}, 64)
    with torch.no_grad():  # as after training: zeros in norms and queries would leave whole branches untested
        for name, parameter in network.named_parameters():
            if name.endswith("second.1.weight") or name == "pooling.query":
                parameter.normal_(0, 0.5)
    return network.eval()


@pytest.fixture(scope="module")
def graph(network: SpatialNet) -> bytes:
    return export_onnx(network, SPEC)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return golden_images((), SPEC.input)


def test_the_graph_equals_torch_on_real_images(network: SpatialNet, graph: bytes, images: np.ndarray) -> None:
    assert check_parity(graph, SPEC, reference(network, SPEC, images), images) <= PARITY


def test_another_network_fails_the_parity_check(graph: bytes, images: np.ndarray, network: SpatialNet) -> None:
    answers = reference(network, SPEC, images)
    answers["land_use"] = answers["land_use"] + 0.01
    with pytest.raises(BuildError, match=r"differs from torch by 1\.00e-02 in 'land_use'"):
        check_parity(graph, SPEC, answers, images)


def test_pixels_in_probabilities_out(graph: bytes, images: np.ndarray) -> None:
    outputs = load_backend("onnxruntime").open(graph, SPEC, 1).infer(images)
    assert outputs["land_use"].sum(axis=1) == pytest.approx(np.ones(len(images)), abs=1e-5)
    assert outputs["objects"].min() >= 0
    assert outputs["objects"].max() <= 1
    one_by_one = load_backend("onnxruntime").open(graph, SPEC, 1).infer(images[3:4])
    assert one_by_one["land_use"][0] == pytest.approx(outputs["land_use"][3], abs=1e-5)


def test_the_graph_is_static_and_fusible(graph: bytes) -> None:
    model = onnx.load_from_string(graph)
    assert model.opset_import[0].version == OPSET >= 18
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("LayerNormalization") == 2 * PRESETS["student-2m"].depth + 1
    assert kinds.count("Gelu") == PRESETS["student-2m"].depth
    assert "BatchNormalization" not in kinds  # folded into the convolutions
    assert not {"If", "Loop", "Range", "Where"} & set(kinds)
    assert kinds.index("Cast") < kinds.index("Transpose")
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert b"/work" not in graph
    assert b".py" not in graph


def test_a_checkpoint_goes_through_to_a_bundle(network: SpatialNet, tmp_path: Path) -> None:
    provenance = Provenance(created="", tool="tests", source="random weights", command="pytest")
    save_network(tmp_path / "run", network, "student-2m", SPEC, provenance)
    loaded, spec, origin = load_network(tmp_path / "run")
    assert spec == SPEC
    assert origin == provenance
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), loaded.state_dict().values(), strict=True))
    bundle = export_checkpoint(tmp_path / "run", tmp_path / "student.snb", golden=())
    assert bundle.spec == SPEC
    assert bundle.manifest.provenance.command == "pytest"
    assert len(bundle.manifest.golden.frames) >= 8


def test_a_graph_describes_its_inputs_and_outputs(graph: bytes) -> None:
    model = onnx.load_from_string(with_metadata(graph, SPEC, "MIT; trained on nothing"))
    said = {each.key: each.value for each in model.metadata_props}
    assert said["model_license"] == "MIT; trained on nothing"
    assert said["Image.BitmapPixelFormat"] == "Rgb8"
    assert json.loads(said["input"])["height"] == SPEC.input.height
    assert json.loads(said["input"])["ranges"] == {}  # levels of a camera
    bands = replace(SPEC, input=replace(SPEC.input, groups=groups_named(("rgb", "sar"))))
    ranges = json.loads(described(bands)["input"])["ranges"]
    assert ranges == {"vv": {"unit": "dB", "low": -30, "high": 5}, "vh": {"unit": "dB", "low": -35, "high": 0}}
    heads = {head["name"]: head for head in json.loads(said["heads"])}
    assert [*heads] == [head.name for head in SPEC.heads] == [output.name for output in model.graph.output]
    assert heads["land_use"]["labels"] == [*SPEC.heads[0].labels]
    pruned = prune(model.SerializeToString(), SPEC.keep(("land_use",)))
    said = {each.key: each.value for each in onnx.load_from_string(pruned).metadata_props}
    assert [head["name"] for head in json.loads(said["heads"])] == ["land_use"]
    assert said["model_license"] == "MIT; trained on nothing"


def test_a_quantity_comes_out_in_its_unit_and_inside_its_range(graph: bytes, images: np.ndarray, network: SpatialNet) -> None:
    counts = load_backend("onnxruntime").open(graph, SPEC, 1).infer(images)["count"]
    x = normalise(images)
    np.testing.assert_allclose(counts, 100 * torch.sigmoid(network(x)["count"]).detach().numpy(), atol=1e-3)


def test_a_group_whose_pixels_are_zero_is_absent(images: np.ndarray) -> None:
    """The graph detects the bands of each image."""
    torch.manual_seed(0)
    spec = msgspec.structs.replace(SPEC, input=InputSpec(height=64, width=64, groups=groups_named(("rgb", "thermal"))))
    network = SpatialNet("student-1m", {head.name: head.width for head in spec.heads}, 64, spec.input.groups).eval()
    torch.nn.init.normal_(network.backbone.embedding.absent)
    both = np.concatenate([images, 255 - images[..., :1]], axis=3)
    both[1, ..., 3] = 0
    content = export_onnx(network, spec)
    check_parity(content, spec, reference(network, spec, both), both)
    x = normalise(both)
    with torch.inference_mode():
        expected = network(x, torch.tensor([[1.0, 1.0], [1.0, 0.0], *[[1.0, 1.0]] * (len(x) - 2)]))["land_use"]
    outputs = load_backend("onnxruntime").open(content, spec, 1).infer(both)["land_use"]
    np.testing.assert_allclose(outputs, (expected / 1.7).softmax(1).numpy(), atol=1e-5)


def test_a_convolutional_trunk_exports_with_its_padding_in_the_convolutions(images: np.ndarray) -> None:
    """TensorFlow's SAME padding is uneven where a convolution halves the image; a Pad node would stand between fused
    kernels."""
    torch.manual_seed(0)
    network = SpatialNet("timm-trunk:tf_efficientnet_lite0", {head.name: head.width for head in SPEC.heads}, 64).eval()
    content = export_onnx(network, SPEC)
    check_parity(content, SPEC, reference(network, SPEC, images), images)
    kinds = [node.op_type for node in onnx.load_from_string(content).graph.node]
    assert kinds.count("Conv") == 48
    assert not {"Pad", "BatchNormalization"} & set(kinds)


@pytest.mark.parametrize("backbone", ["student-1m", "student-3m", "student-6m", "spatialnet-vit", "timm:vit_tiny_patch16_224"])
def test_every_network_exports_with_norms_and_activations_as_single_nodes(backbone: str, images: np.ndarray) -> None:
    torch.manual_seed(0)
    network = SpatialNet(backbone, {head.name: head.width for head in SPEC.heads}, 64).eval()
    content = export_onnx(network, SPEC)
    check_parity(content, SPEC, reference(network, SPEC, images), images)
    kinds = [node.op_type for node in onnx.load_from_string(content).graph.node]
    depth = PRESETS[backbone].depth if backbone in PRESETS else 12
    assert kinds.count("LayerNormalization") == 2 * depth + 1
    assert kinds.count("Gelu") == depth
    assert "BatchNormalization" not in kinds
