"""READY needs recent results that sinks accept; a hung start is ended and counts against the trial."""

import socket
import subprocess
import time
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from conftest import tiny_graph
from service_fixtures import ANY, COMMAND, start, wait_for
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.bundle.slots import TRIAL, Slots
from spatialnet_edge.bundle.writer import file_records, write_bundle
from spatialnet_edge.cli.app import app
from spatialnet_edge.sinks.queued import QueuedSink

SOURCE = "synthetic:frames=100000&size=64x48&fps=50"


def health_status(folder: Path, *options: str) -> int:
    return CliRunner().invoke(app, ["health", "--file", str(folder / "health.json"), *options]).exit_code


@pytest.mark.fault(47)
@pytest.mark.parametrize("frames", ["deep*100000", "ok*20,deep*100000", "ok*20,empty*100000", "ok*20,again*100000"])
def test_a_source_without_answers_is_degraded(payload: Path, frames: str) -> None:
    folder = payload.parent
    payload.write_text(payload.read_text().replace(SOURCE, f"faulty:{frames}").replace("[health]", "[health]\nresult_s = 2"))
    service = start(payload)
    try:
        found = wait_for(
            folder / "health.json", lambda found: found.state == "DEGRADED" and not found.working and found.up_s > 2
        )
        assert "no result from faulty:" in found.why[0]
        assert "frames are skipped" in found.why[0]
        assert health_status(folder) == 1
    finally:
        service.terminate()
        assert service.wait(10) == 0


@pytest.mark.fault(47)
def test_a_service_is_degraded_until_a_sink_accepts_a_result(payload: Path) -> None:
    """The only client never reads; when it disconnects, results are accepted again."""
    folder = payload.parent
    lost = '"unix:{folder}/full.sock"'.replace("{folder}", str(folder))
    text = payload.read_text().replace("[health]", "[health]\nresult_s = 2")
    payload.write_text(text.replace(f'"log:{folder}/results", "null:"', lost))
    service = start(payload)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:  # it never reads
        try:
            wait_for(folder / "health.json", lambda found: found.state == "READY")
            client.connect(str(folder / "full.sock"))
            found = wait_for(folder / "health.json", lambda found: found.state == "DEGRADED" and not found.working, 60)
            assert found.why[0].startswith(f"the sink unix of {SOURCE} has accepted nothing for")
            assert health_status(folder) == 1
            client.close()
            wait_for(folder / "health.json", lambda found: found.state == "READY" and found.working)
            assert health_status(folder, "--strict") == 0
        finally:
            service.terminate()
            assert service.wait(10) == 0


@pytest.mark.fault(47)
def test_lost_results_do_not_count_as_accepted() -> None:
    class Loser:
        lost = 0

        def write(self, result: object) -> None:
            Loser.lost += 1

        def close(self) -> None: ...

    from service_fixtures import result

    sink = QueuedSink(Loser(), wait=True)
    sink.write(result(0))
    time.sleep(0.2)
    assert sink.refused_since is not None
    since = sink.refused_since
    sink.write(result(1))
    assert sink.refused_since == since
    sink.close()


def endless_graph() -> bytes:
    """The tiny graph behind a loop of 2**62 rounds, whose start depends on the picture."""
    model = onnx.load_from_string(tiny_graph())
    graph = model.graph
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["x", "one"], ["more"])],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", TensorProto.FLOAT, []),
        ],
    )
    constants = {
        "rounds": np.int64(2**62),
        "yes": np.array(True),
        "zero": np.float32(0),
        "one": np.float32(1),
        "all": np.array([0, 1, 2, 3], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    nodes = list(graph.node)
    place = next(index for index, node in enumerate(nodes) if node.output[0] == "mean")
    nodes[place].output[0] = "plain_mean"
    nodes[place + 1 : place + 1] = [
        helper.make_node("ReduceMean", ["float", "all"], ["start"], keepdims=0),
        helper.make_node("Loop", ["rounds", "yes", "start"], ["looped"], body=body),
        helper.make_node("Mul", ["looped", "zero"], ["nothing"]),
        helper.make_node("Add", ["plain_mean", "nothing"], ["mean"]),
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    return model.SerializeToString()


@pytest.fixture
def endless(payload: Path) -> Slots:
    """Slots with a proven bundle, and a trial whose golden test never ends."""
    slots = Slots(payload.parent / "root")
    slots.mark_good(slots.choose()[0])
    good = open_bundle(payload.parent / "tiny.snb", ANY)
    files = {record.path: good.read(record.path) for record in good.manifest.files} | {"model.onnx": endless_graph()}
    manifest = msgspec.structs.replace(good.manifest, files=file_records(files), serial=9)
    slots.install(write_bundle(payload.parent / "endless.snb", manifest, files).path, ANY)
    return slots


@pytest.mark.fault(57)
def test_a_bundle_that_hangs_in_its_golden_test_is_rolled_back_after_three_starts(payload: Path, endless: Slots) -> None:
    payload.write_text(payload.read_text().replace("[health]", "[health]\nstart_s = 4"))
    for tries in (1, 2, 3):
        done = subprocess.run(
            [*COMMAND, "serve", "--config", str(payload)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1
        assert "Timeout" in done.stderr  # and the stack of every thread
        assert endless.state.tries == tries
    service = start(payload)
    found = wait_for(payload.parent / "health.json", lambda found: found.state == "READY")
    service.terminate()
    assert service.wait(10) == 0
    assert found.serial != 9
    assert endless.target(TRIAL) is None


@pytest.mark.fault(57)
def test_sigterm_ends_a_start_that_hangs_and_costs_no_try(payload: Path, endless: Slots) -> None:
    service = start(payload)
    until = time.monotonic() + 20
    while endless.state.tries == 0 and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(1)
    asked = time.monotonic()
    service.terminate()
    assert service.wait(10) == 0
    assert time.monotonic() - asked < 2
    assert endless.state.tries == 0
    assert endless.target(TRIAL) is not None
