"""The networks: sizes, shapes, positions, missing bands, timm networks, transfer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from torch.nn.functional import conv2d

from spatialnet_edge.bundle.manifest import Provenance
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.spec import RGB, InputSpec, ModelSpec, Multiclass
from spatialnet_training.cli.configs import read_config
from spatialnet_training.config import TrainingStage
from spatialnet_training.data.augmentation import standardise
from spatialnet_training.data.bands import groups_named
from spatialnet_training.data.datasets import load_published
from spatialnet_training.loop.parameter_groups import parameter_groups
from spatialnet_training.loop.training_run import train
from spatialnet_training.networks.backbones import PRESETS, Encoder, EncoderShape
from spatialnet_training.networks.checkpoint import load_network, save_network
from spatialnet_training.networks.csmask_weights import first_layer
from spatialnet_training.networks.model import SpatialNet
from spatialnet_training.networks.timm_backbone import TimmBackbone, import_timm, load_weights
from spatialnet_training.networks.timm_stem import TimmStem
from spatialnet_training.networks.transfer import transfer
from training_fixtures import TINY_RUN

MILLIONS = {"student-1m": 1, "student-2m": 2, "student-2m-texture": 2, "student-3m": 3, "student-6m": 6, "spatialnet-vit": 38}


def heads(**labels: tuple[str, ...]) -> tuple[Multiclass, ...]:
    return tuple(Multiclass(name=name, labels=each) for name, each in labels.items())


def saved(path: Path, network: SpatialNet, backbone: str, of: tuple[Multiclass, ...], size: int = 64) -> None:
    """Write a checkpoint to start from."""
    spec = ModelSpec(name=path.name, input=InputSpec(height=size, width=size, groups=(RGB,)), heads=of)
    save_network(path, network, backbone, spec, Provenance(created="", tool="", source=""))


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_size_it_is_named_after(name: str) -> None:
    network = SpatialNet(name, {"a": 20}, 96)
    assert count(network) / 1e6 == pytest.approx(MILLIONS[name], rel=0.2)
    assert network(torch.zeros(2, 3, 96, 96))["a"].shape == (2, 20)


def test_the_teacher_is_the_published_encoder() -> None:
    shape = PRESETS["spatialnet-vit"]
    encoder = Encoder(shape, (RGB,), 64)
    assert (shape.width, shape.depth, shape.width // shape.head_width) == (512, 12, 8)
    assert encoder.embedding.convolutions["rgb"].kernel_size == (16, 16)
    assert encoder(torch.zeros(1, 3, 64, 64)).shape == (1, 16, 512)


def test_every_width_is_a_multiple_of_eight() -> None:
    for shape in PRESETS.values():
        assert all(width % 8 == 0 for width in (shape.width, shape.head_width, *shape.stem))
        assert shape.width % shape.head_width == 0


@pytest.mark.parametrize("name", ["student-1m", "spatialnet-vit"])
def test_positions_interpolate_to_other_sizes(name: str) -> None:
    network = SpatialNet(name, {"a": 2}, 96).eval()
    for size in (32, 64, 96, 128):
        assert network(torch.zeros(1, 3, size, size))["a"].shape == (1, 2)


def test_registers_and_absent_positions_can_be_tried() -> None:
    shape = EncoderShape(width=32, depth=1, mlp_ratio=2, stem=(8, 8, 8), residuals=(0, 0, 0), positions=False, registers=3)
    encoder = Encoder(shape, (RGB,), 64).eval()
    x = torch.randn(1, 3, 64, 64)
    assert encoder(x).shape == (1, 16, 32)
    assert encoder.positions is None


def test_without_positions_a_transformer_ignores_order() -> None:
    """With plain patches and no positions, tokens only move with their patches; with positions they change."""
    torch.manual_seed(0)
    x = torch.randn(1, 3, 32, 32)
    swapped = torch.cat([x[..., 16:], x[..., :16]], dim=-1)
    for positions in (False, True):
        encoder = Encoder(EncoderShape(width=32, depth=1, mlp_ratio=2, positions=positions), (RGB,), 32).eval()
        before, after = encoder(x)[0, 0], encoder(swapped)[0, 1]
        assert torch.allclose(before, after, atol=1e-5) is not positions


@pytest.mark.parametrize("name", ["student-1m", "spatialnet-vit"])
def test_the_pixels_of_an_absent_group_do_not_matter(name: str) -> None:
    torch.manual_seed(0)
    groups = groups_named(("rgb", "thermal"))
    network = SpatialNet(name, {"a": 2}, 32, groups).eval()
    x = torch.randn(2, 4, 32, 32)
    other = x.clone()
    other[:, 3] += 5
    present = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    before, after = network(x, present)["a"], network(other, present)["a"]
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])
    assert torch.equal(network(x)["a"], network(x, torch.ones(2, 2))["a"])


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_network_of_timm_is_a_backbone(name: str) -> None:
    size = 224 if name.startswith("swin") else 64
    network = SpatialNet(f"timm:{name}", {"a": 5, "b": 3}, size).eval()
    answers = network(torch.randn(2, 3, size, size))
    assert {head: values.shape for head, values in answers.items()} == {"a": (2, 5), "b": (2, 3)}
    layers = network.backbone.layers()
    assert sum(len(layer) for layer in layers) == len(list(network.backbone.parameters()))
    assert len(layers) > 5


def test_a_trunk_is_a_network_of_timm_without_its_widest_layer_and_starts_from_the_whole(tmp_path: Path) -> None:
    torch.manual_seed(3)
    head = heads(a=("x", "y", "z"))
    whole = SpatialNet("timm:tf_efficientnet_lite0", {"a": 3}, 64).eval()
    saved(tmp_path / "whole", whole, "timm:tf_efficientnet_lite0", head)
    trunk = SpatialNet("timm-trunk:tf_efficientnet_lite0", {"a": 3}, 64).eval()
    assert (whole.backbone.width, trunk.backbone.width) == (1280, 320)
    assert sum(parameter.numel() for parameter in trunk.parameters()) < 3_100_000
    layers = trunk.backbone.layers()
    assert sum(len(layer) for layer in layers) == len(list(trunk.backbone.parameters()))

    transfer(trunk, head, tmp_path / "whole")
    x = torch.randn(2, 3, 64, 64)
    last = whole.backbone.network
    widened = last.bn2(last.conv_head(trunk.backbone(x).transpose(1, 2).reshape(2, 320, 2, 2)))
    torch.testing.assert_close(widened.flatten(2).transpose(1, 2), whole.backbone(x))
    with pytest.raises(UsageError, match="use the backbone of the checkpoint"):
        transfer(SpatialNet("timm-trunk:tf_efficientnet_lite1", {"a": 3}, 64), head, tmp_path / "whole")


@pytest.mark.parametrize(("stem", "last"), [("tf_efficientnet_lite0", 4), ("timm-trunk:tf_efficientnet_lite0", 6)])
def test_a_hybrid_starts_with_the_stages_of_a_trunk_and_silent_blocks(stem: str, last: int, tmp_path: Path) -> None:
    torch.manual_seed(5)
    head = heads(a=("x", "y", "z"))
    trunk = SpatialNet("timm-trunk:tf_efficientnet_lite0", {"a": 3}, 64).eval()
    saved(tmp_path / "trunk", trunk, "timm-trunk:tf_efficientnet_lite0", head)
    hybrid = SpatialNet(f"student-1m+{stem}", {"a": 3}, 64).eval()
    transfer(hybrid, head, tmp_path / "trunk")
    own = hybrid.backbone.embedding.network
    assert len(own.blocks) == last + 1
    assert torch.equal(own.blocks[last][0].conv_pw.weight, trunk.backbone.network.blocks[last][0].conv_pw.weight)
    assert torch.equal(own.bn1.running_var, trunk.backbone.network.bn1.running_var)
    assert hybrid.backbone(torch.zeros(2, 3, 64, 64)).shape == (2, 16, hybrid.backbone.width)
    tokens = torch.randn(2, 16, hybrid.backbone.width)
    assert torch.equal(hybrid.backbone.blocks(tokens), tokens)
    with pytest.raises(UsageError, match="use the backbone of the checkpoint"):
        transfer(SpatialNet("student-1m+tf_efficientnet_lite1", {"a": 3}, 64), head, tmp_path / "trunk")


def test_a_network_without_colour_starts_from_one_with_colour(tmp_path: Path) -> None:
    """As the runs of `modalities --train-alone` do."""
    torch.manual_seed(6)
    head = heads(a=("x", "y", "z"))
    source = SpatialNet("student-1m", {"a": 3}, 32).eval()
    saved(tmp_path / "colour", source, "student-1m", head, 32)
    for names in (("nir",), ("nir", "swir")):
        network = SpatialNet("student-1m", {"a": 3}, 32, groups_named(names))
        transfer(network, head, tmp_path / "colour")
        filters = source.backbone.embedding.convolutions["rgb"].weight.mean(dim=1, keepdim=True)
        torch.testing.assert_close(network.backbone.embedding.convolutions["nir"].weight, filters)
        assert torch.equal(network.backbone.blocks[0].qkv.weight, source.backbone.blocks[0].qkv.weight)
        assert torch.equal(network.heads["a"].weight, source.heads["a"].weight)


def test_a_timm_network_accepts_other_bands() -> None:
    groups = groups_named(("rgb", "nir"))
    network = SpatialNet("timm:tf_efficientnet_lite0", {"a": 5}, 64, groups).eval()
    x = torch.randn(1, 4, 64, 64)
    other = x.clone()
    other[:, 3] = 9
    absent = torch.tensor([[1.0, 0.0]])
    assert torch.equal(network(x, absent)["a"], network(other, absent)["a"])
    assert not torch.equal(network(x)["a"], network(other)["a"])


def test_weights_of_a_file_are_loaded_by_name_or_in_order(tmp_path: Path) -> None:
    source = import_timm().create_model("tf_efficientnet_lite0", num_classes=7)
    torch.save(source.state_dict(), tmp_path / "named.pt")
    renamed = {f"x{index}": value for index, value in enumerate(source.state_dict().values())}
    torch.save(renamed, tmp_path / "renamed.pt")
    for file in ("named.pt", "renamed.pt"):
        backbone = TimmBackbone("tf_efficientnet_lite0", (RGB,), 64, str(tmp_path / file))
        assert torch.equal(backbone.network.conv_head.weight, source.conv_head.weight)
        assert torch.equal(backbone.network.bn2.running_mean, source.bn2.running_mean)
        trunk = TimmBackbone("tf_efficientnet_lite0", (RGB,), 64, str(tmp_path / file), trunk=True)
        assert torch.equal(trunk.network.blocks[6][0].conv_pw.weight, source.blocks[6][0].conv_pw.weight)
    torch.save({"x": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(UsageError, match="1 tensors that match neither by name nor by order"):
        load_weights(source, tmp_path / "other.pt")
    with pytest.raises(UsageError, match="not weights, or not safe to read"):
        load_weights(source, tmp_path / "missing.pt")


def test_an_unknown_backbone_is_reported_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no preset 'huge'; available: student-1m, .*timm:NAME"):
        SpatialNet("huge", {"a": 2}, 32)
    with pytest.raises(UsageError, match="timm has no network 'resnet51'"):
        SpatialNet("timm:resnet51", {"a": 2}, 32)
    with pytest.raises(UsageError, match="no band group 'x-ray'"):
        groups_named(("rgb", "x-ray"))


@pytest.mark.parametrize(
    ("adapt", "learning"), [("full", {"backbone", "pooling", "heads"}), ("frozen", {"pooling", "heads"}), ("probe", {"heads"})]
)
def test_only_the_requested_layers_are_trainable(adapt: str, learning: set[str]) -> None:
    network = SpatialNet("student-1m", {"a": 2}, 32)
    groups = parameter_groups(network, replace(TINY_RUN, adapt=adapt))
    chosen = {id(parameter) for group in groups for parameter in group["params"]}
    assert {name.split(".")[0] for name, parameter in network.named_parameters() if id(parameter) in chosen} == learning
    assert all(parameter.requires_grad == (id(parameter) in chosen) for parameter in network.parameters())


def test_learning_rates_fall_towards_the_pixels() -> None:
    network = SpatialNet("student-1m", {"a": 2}, 32)
    groups = parameter_groups(network, replace(TINY_RUN, layer_decay=0.5))
    scale = {id(parameter): group["scale"] for group in groups for parameter in group["params"]}
    depth = PRESETS["student-1m"].depth
    assert scale[id(network.heads["a"].weight)] == 1
    assert scale[id(network.backbone.blocks[-1].qkv.weight)] == 0.5**2  # below the last norm
    assert scale[id(network.backbone.blocks[0].qkv.weight)] == 0.5 ** (depth + 1)
    assert scale[id(network.backbone.embedding.convolutions["rgb"].weight)] == 0.5 ** (depth + 2)
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decay[id(network.backbone.positions)] == decay[id(network.pooling.query)] == 0
    assert decay[id(network.pooling.key.weight)] == TINY_RUN.weight_decay


def test_a_network_starts_from_the_backbone_and_the_equal_heads_of_another(tmp_path: Path) -> None:
    torch.manual_seed(1)
    old_heads = heads(same=("x", "y", "z"), other=("x", "y"))
    old = SpatialNet("student-1m", {head.name: head.width for head in old_heads}, 96)
    torch.nn.init.normal_(old.pooling.query)
    saved(tmp_path / "old", old, "student-1m", old_heads, 96)
    new_heads = heads(new=("p", "q"), other=("y", "x"), same=("x", "y", "z"))
    new = SpatialNet("student-1m", {head.name: head.width for head in new_heads}, 64)
    head = new.heads["other"].weight.clone()
    transfer(new, new_heads, tmp_path / "old")
    assert torch.equal(new.backbone.blocks[0].qkv.weight, old.backbone.blocks[0].qkv.weight)
    assert torch.equal(new.heads["same"].weight, old.heads["same"].weight)
    assert torch.equal(new.pooling.query[2], old.pooling.query[0])
    assert torch.equal(new.heads["other"].weight, head)  # its labels stand in another order
    assert (new.pooling.query[:2] == 0).all()
    assert new.backbone.positions.shape[-1] == 4
    with pytest.raises(UsageError, match="use the backbone of the checkpoint"):
        transfer(SpatialNet("student-2m", {"new": 2}, 64), new_heads[:1], tmp_path / "old")


def test_a_deeper_network_initially_computes_the_same_and_trains_completely(tmp_path: Path) -> None:
    torch.manual_seed(2)
    head = heads(a=("x", "y", "z"))
    old = SpatialNet("student-2m", {"a": 3}, 64)
    saved(tmp_path / "old", old, "student-2m", head)
    deeper = SpatialNet("student-3m", {"a": 3}, 64)
    x = torch.randn(4, 3, 64, 64)
    assert not torch.allclose(deeper.eval()(x)["a"], old.eval()(x)["a"])
    transfer(deeper, head, tmp_path / "old")
    torch.testing.assert_close(deeper(x)["a"], old(x)["a"])

    optimizer = torch.optim.SGD(deeper.parameters(), lr=0.1)
    for _ in range(2):  # in the first step only the zero-initialised layers get a gradient
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(deeper(x)["a"], torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    newest = deeper.backbone.blocks[-1]
    assert all(parameter.grad.abs().sum() > 0 for parameter in (newest.qkv.weight, newest.mlp[0].weight))


def test_a_torchvision_whose_library_loads_is_left_alone(tmp_path: Path) -> None:
    """Declaring its operators twice would abort the process, so that timm could not be imported with matching torch and
    torchvision. Both cases are simulated, because with a CPU-only torch the real torchvision has no library."""
    (tmp_path / "timm.py").write_text("import torchvision")
    (tmp_path / "torchvision.py").write_text(
        "import torch\nassert not hasattr(torch.ops.torchvision, 'nms')\nlibrary = torch.library.Library('torchvision', "
        "'DEF')\nlibrary.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
    )
    program = "from spatialnet_training.networks.timm_backbone import import_timm; print(import_timm().__file__)"
    python_path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == tmp_path / "timm.py"


def test_the_published_encoder_stands_behind_the_first_stages_of_a_convolutional_network() -> None:
    network = SpatialNet("spatialnet-vit+tf_efficientnet_lite0", {"a": 3}, 96)
    encoder = network.backbone
    assert isinstance(encoder, Encoder)
    assert (encoder.width, len(encoder.blocks), encoder.blocks[0].heads) == (512, 12, 8)
    assert sum(1 for _ in encoder.layers()) == 14


def test_a_hybrid_begins_with_the_weights_of_its_stem_and_takes_more_bands(tmp_path: Path) -> None:
    whole = import_timm().create_model("tf_efficientnet_lite0", num_classes=10)
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    plain = SpatialNet("student-1m+tf_efficientnet_lite0", {"a": 3}, 64, weights=str(tmp_path / "weights.pth"))
    stem = plain.backbone.embedding
    assert isinstance(stem, TimmStem)
    assert torch.equal(stem.network.blocks[4][0].conv_pw.weight, whole.blocks[4][0].conv_pw.weight)
    assert plain(torch.zeros(2, 3, 64, 64))["a"].shape == (2, 3)
    groups = groups_named(("rgb", "nir"))
    wide = SpatialNet("student-1m+tf_efficientnet_lite0", {"a": 3}, 64, groups, weights=str(tmp_path / "weights.pth"))
    inflated = wide.backbone.embedding.network.conv_stem.weight
    torch.testing.assert_close(inflated.sum(dim=1), whole.conv_stem.weight.sum(dim=1))
    x, withheld = torch.randn(2, 4, 64, 64), torch.tensor([[1.0, 0.0]] * 2)
    changed = torch.cat([x[:, :3], torch.randn(2, 1, 64, 64)], dim=1)
    wide.eval()
    torch.testing.assert_close(wide(x, withheld)["a"], wide(changed, withheld)["a"])
    with pytest.raises(UsageError, match="cannot be a stem"):
        SpatialNet("student-1m+vit_tiny_patch16_224", {"a": 3}, 64)


def test_the_configurations_of_the_transformer_teacher_are_read_and_a_tiny_one_trains_two_steps(
    data_root: Path, tmp_path: Path
) -> None:
    for name, stem in (
        ("spatialnet-vit", "timm-trunk:tf_efficientnet_lite0"),
        ("gpu/spatialnet-vit", "tf_efficientnet_lite0"),
    ):
        config = read_config(name, ())
        assert config.backbone == f"spatialnet-vit+{stem}"
        assert "nwpu_resisc45" in config.data
    tiny = replace(
        TINY_RUN, backbone="student-1m+tf_efficientnet_lite0", layer_decay=0.9, epoch_images=32, batch=16,
        data={"eurosat": "eurosat.zip"}, stages=(TrainingStage(size=32, epochs=1),),
    )  # fmt: skip
    checkpoint = train(tiny, load_published({"eurosat": data_root / "eurosat.zip"}, 48), tmp_path / "run", "test")
    network, spec, _ = load_network(checkpoint)
    assert isinstance(network.backbone.embedding, TimmStem)
    assert spec.input.height == 32


def test_a_first_layer_of_other_bands_and_normalisation_computes_the_same() -> None:
    """As the cloud networks of ukis-csmask have it: their order of bands and their statistics, for our levels."""
    torch.manual_seed(0)
    names = ["blue", "green", "red", "nir", "swir16", "swir22"]
    mean, deviation = torch.rand(6) * 0.3 + 0.1, torch.rand(6) * 0.2 + 0.1
    state = {"conv_stem.weight": torch.randn(4, 6, 3, 3), "bn1.running_mean": torch.randn(4)}
    changed = first_layer(state, {"band_names": names, "img": [mean.tolist(), deviation.tolist()]})
    levels = torch.randint(1, 256, (1, 6, 12, 12)).float()  # red, green, blue, nir, swir_1, swir_2
    theirs = (levels[:, [2, 1, 0, 3, 4, 5]] / 255 * 0.4 - mean.view(1, 6, 1, 1)) / deviation.view(1, 6, 1, 1)
    expected = conv2d(theirs, state["conv_stem.weight"]) - state["bn1.running_mean"].view(1, 4, 1, 1)
    found = conv2d(standardise(levels), changed["conv_stem.weight"]) - changed["bn1.running_mean"].view(1, 4, 1, 1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
