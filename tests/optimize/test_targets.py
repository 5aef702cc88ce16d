"""The table of devices, impossible requests, and predicted latencies."""

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from spatialnet_edge.cli.app import app
from spatialnet_edge.core.errors import EngineUnavailable, UsageError
from spatialnet_optimize.targets.catalogue import Target, by_power_mode, check_request, find_target, load_targets
from spatialnet_optimize.targets.roofline import LAUNCH_US, Layer, layers, predict

TARGETS = load_targets()


def test_every_jetson_has_what_a_prediction_needs() -> None:
    jetsons = {name: row for name, row in TARGETS.items() if row.compile == "tensorrt"}
    assert set(jetsons) == {"orin-nano", "orin-nx", "agx-orin", "xavier-nx", "agx-xavier", "thor"}
    for row in jetsons.values():
        assert row.bandwidth > 0 < row.memory_gb
        assert set(row.tera_ops) <= set(row.hardware)
        assert row.tera_ops["fp16"] > row.tera_ops["fp32"]
        assert len(row.tensorrt) == 2
        assert row.jetpack


@pytest.mark.parametrize(
    ("name", "request_", "says"),
    [
        ("orin-nano", {"precision": "fp8"}, "needs compute capability 8.9 or later and this has 8.7; use fp16"),
        ("xavier-nx", {"precision": "bf16"}, "it has fp32, fp16, int8; use fp16"),
        ("orin-nano", {"dla": True}, "it has none; remove --dla"),
        ("thor", {"dla": True}, "it has none; remove --dla"),
        ("agx-orin", {"dla": True, "tensorrt": "11.2"}, "after 10.7 and before 11.4.1 do not support it"),
        ("orin-nx", {"dla": True, "tensorrt": "11.4.1"}, "supports it only on AGX Orin, not on orin-nx"),
    ],
)
def test_an_impossible_request_says_why_and_what_to_use(name: str, request_: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_request(name, TARGETS[name], **request_)


def test_a_possible_request_passes() -> None:
    check_request("thor", TARGETS["thor"], "fp8")
    check_request("agx-orin", TARGETS["agx-orin"], "int8", dla=True, tensorrt="11.4.1")
    check_request("orin-nx", TARGETS["orin-nx"], "int8", dla=True, tensorrt="10.3")


def test_a_too_old_device_is_refused() -> None:
    with pytest.raises(
        EngineUnavailable, match=r"ends at TensorRT 8\.5 \(JetPack 5\.1\); the oldest supported release is 10\.3"
    ):
        find_target("xavier-nx")


def test_a_users_own_rows_are_added(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[my-board]\ndescription = "A board"\ncompile = "onnxruntime"\nprecisions = ["fp32"]\n')
    name, row = find_target("my-board", mine)
    assert (name, row.description) == ("my-board", "A board")
    mine.write_text('[my-board]\ndescription = "A board"\ncompiler = "x"\n')
    with pytest.raises(UsageError, match="compiler"):
        load_targets(mine)
    with pytest.raises(UsageError, match="no table of targets"):
        load_targets(tmp_path / "missing.toml")


def test_operations_are_counted_layer_by_layer() -> None:
    weight = numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), "w")
    matrix = numpy_helper.from_array(np.zeros((8, 5), np.float32), "m")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Transpose", ["r"], ["t"], name="turn", perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["t", "m"], ["y"], name="linear"),
    ]
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["N", 3, 4, 4]), ("y", ["N", 4, 4, 5]))
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weight, matrix])
    found = layers(helper.make_model(graph).SerializeToString())
    assert [(layer.name, layer.operations) for layer in found] == [
        ("conv", 2 * (8 * 4 * 4) * (3 * 3 * 3)),
        ("linear", 2 * (4 * 4 * 5) * 8),
    ]
    assert found[0].elements == 3 * 16 + 8 * 27 + 8 * 16


def test_each_power_mode_is_predicted_by_its_own_clock() -> None:
    nano, nx = (by_power_mode(name, TARGETS[name]) for name in ("orin-nano", "orin-nx"))
    assert list(nano) == ["orin-nano MAXN_SUPER", "orin-nano 25W", "orin-nano 15W"]
    assert nano["orin-nano MAXN_SUPER"].tera_ops == TARGETS["orin-nano"].tera_ops
    assert nano["orin-nano 15W"].tera_ops["int8"] == pytest.approx(20, rel=0.02)  # its data sheet: 40 sparse
    assert nano["orin-nano 15W"].bandwidth == 68
    assert nx["orin-nx MAXN"].tera_ops["int8"] == pytest.approx(30, rel=0.02)
    heavy = [Layer("a", "MatMul", 10**9, 1)]
    times = {name: predict(heavy, name, row, "int8").ms for name, row in {**nano, **nx}.items()}
    assert times["orin-nx MAXN_SUPER"] < times["orin-nano MAXN_SUPER"] < times["orin-nano 25W"] < times["orin-nano 15W"]
    half = times["orin-nx 15W"] / times["orin-nx MAXN_SUPER"]  # of the multiprocessors, and a lower clock
    assert half == pytest.approx(2 * 1173 / 612)
    assert all(mode.gpu_share <= 1 for row in TARGETS.values() for mode in row.power_modes.values())
    assert by_power_mode("thor", TARGETS["thor"]) == {"thor": TARGETS["thor"]}


def test_newer_tensorrt_supports_the_boards_listed_by_nvidia() -> None:
    assert {name for name, row in TARGETS.items() if "11.4" in row.tensorrt} == {"agx-orin", "thor"}


def test_a_layer_takes_its_longest_limit() -> None:
    device = Target(description="", compile="", tera_ops={"fp16": 1.0}, bandwidth=100)
    tiny = predict([Layer("a", "MatMul", 1, 1)] * 10, "x", device, "fp16")
    assert tiny.ms == pytest.approx(10 * LAUNCH_US / 1000)
    assert tiny.bound["launch"] == 1
    assert predict([Layer("a", "MatMul", 10**12, 1)], "x", device, "fp16").bound["arithmetic"] == 1
    assert predict([Layer("a", "MatMul", 1, 10**9)], "x", device, "fp16").bound["memory"] == 1
    assert tiny.low_ms < tiny.ms < tiny.high_ms


def test_the_command_predicts_and_says_that_it_does(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["cost", "builtin:student", "--json", str(tmp_path / "cost.json")])
    assert result.exit_code == 0, result.output
    assert "PREDICTED, not measured" in result.output
    predicted = {
        (each["target"], each["precision"]): each["predicted_ms"] for each in json.loads((tmp_path / "cost.json").read_text())
    }
    assert "starting kernels" in result.output
    nano, agx = "orin-nano MAXN_SUPER", "agx-orin MAXN"
    assert 0.1 < predicted[nano, "fp16"] < 10
    assert predicted[agx, "fp16"] <= predicted[nano, "fp16"] <= predicted[nano, "fp32"]
    result = CliRunner().invoke(app, ["cost", "builtin:student", "--target", "cpu"])
    assert "the peak rates of 'cpu' are unknown" in str(result.exception)
