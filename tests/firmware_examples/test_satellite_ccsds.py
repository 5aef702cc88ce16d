"""The imaging payload and its ground program: rules, byte budgets, power losses, lost packets."""

import socket
import subprocess
import sys
import time
import tracemalloc
from collections import deque
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from conftest import CLIP, ROOT, TINY
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.frames import Frame
from spatialnet_edge.core.results import FrameResult, assemble
from spatialnet_edge.core.spec import Known
from spatialnet_edge.sinks.record_codec import unpack
from spatialnet_edge.sinks.registry import open_sink

pytest.importorskip("spacepackets")
BUNDLE = "00112233445566ff"
FOLDER = ROOT / "firmware_examples" / "satellite_ccsds"


@pytest.fixture(scope="module", autouse=True)
def example_on_the_path() -> None:
    sys.path.insert(0, str(FOLDER))


def satellite(*arguments: object) -> str:
    command = [sys.executable, str(FOLDER / "satellite.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def result(bright: float, bands: tuple[float, float, float] = (0.9, 0.1, 0.1), level: float = 5) -> FrameResult:
    rows = {"shade": [1 - bright, bright], "bands": bands, "level": [level]}
    return assemble(
        TINY, Frame(np.zeros((4, 4, 3), np.uint8), 0, "tests"), {n: np.array(r, np.float32) for n, r in rows.items()}, 1.0, ()
    )


@pytest.mark.parametrize(
    ("rule", "given", "expected"),
    [
        ("keep if shade is bright else thumbnail", result(0.9), "keep"),
        ("keep if shade is bright else thumbnail", result(0.1), "thumbnail"),
        ("keep if shade in [bright, dark] and p >= 0.95 else nothing", result(0.9), "nothing"),
        ("keep if shade in [bright] and p ≥ 0.85 and bands has red else nothing", result(0.9), "keep"),
        ("keep if bands has blue else nothing", result(0.9), "nothing"),
        ("keep if level >= 4 else nothing", result(0.9), "keep"),
        ("keep if level >= 6.5 else nothing", result(0.9), "nothing"),
        ("keep if always else nothing", result(0.5), "keep"),
        ("keep if shade is bright else thumbnail", result(0.55), "thumbnail"),  # unsure
    ],
)
def test_a_rule_selects_frames(rule: str, given: FrameResult, expected: str) -> None:
    from spatialnet_edge.sinks.routing import read_rule

    assert read_rule(rule, TINY).decide(given) == expected


@pytest.mark.parametrize(
    ("rule", "known", "expected"),
    [
        ("keep if known >= 0.5 else nothing", 0.6, "keep"),
        ("keep if known >= 0.5 else nothing", 0.4, "nothing"),
        ("keep if unknown else nothing", 0.2, "keep"),
        ("keep if unknown else nothing", 0.6, "nothing"),
        ("keep if shade is bright else nothing", 0.2, "nothing"),
    ],
)
def test_a_rule_may_use_known(rule: str, known: float, expected: str) -> None:
    from spatialnet_edge.sinks.routing import read_rule

    spec = msgspec.structs.replace(TINY, known=Known(threshold=0.3))
    rows = {"shade": [0.1, 0.9], "bands": [0.9, 0.1, 0.1], "level": [5], "known": [known]}
    frame = Frame(np.zeros((4, 4, 3), np.uint8), 0, "tests")
    given = assemble(spec, frame, {name: np.array(row, np.float32) for name, row in rows.items()}, 1.0, ())
    assert read_rule(rule, spec).decide(given) == expected


@pytest.mark.fault(78)
@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("keep the good ones", "expected 'keep if"),
        ("keep if shade is purple else nothing", "has no label 'purple'; it has dark, bright"),
        ("keep if cover is dark else nothing", "no multiclass head 'cover'; this model has shade"),
        ("keep if p >= 0.5 else nothing", "p needs a head before it"),
        ("keep if shade else nothing", "is not a condition"),
        ("keep if shade is dark and p >= 0.5. else nothing", "is not a condition"),
        ("keep if level >= . else nothing", "is not a condition"),
        ("keep if known >= 0.5 else nothing", "has no output 'known'"),
        ("keep if level has red else nothing", "no multilabel head 'level'"),
    ],
)
def test_a_rule_that_does_not_fit_the_model_is_refused(rule: str, says: str) -> None:
    from spatialnet_edge.sinks.routing import read_rule

    with pytest.raises(UsageError, match=says):
        read_rule(rule, TINY)


def test_capture_downlink_and_ground_end_to_end(tmp_path: Path) -> None:
    queue = tmp_path / "queue"
    rule = "keep if land_use in [forest, park, agriculture] and p >= 0.3 else thumbnail"
    printed = satellite("capture", "builtin:student", CLIP, queue, "--rule", rule)
    kept = int(printed.split(" keep")[0])
    assert 0 < kept < 242
    assert f"{242 - kept} thumbnail" in printed
    passes = []
    for number in range(2):
        recording = tmp_path / f"pass_{number}.bin"
        satellite("downlink", queue, recording, "--budget", 400_000)
        assert recording.stat().st_size <= 400_000
        printed = satellite("ground", recording, tmp_path / f"received_{number}")
        assert "0 packets lost, 0 damaged" in printed
        passes.append(sorted((tmp_path / f"received_{number}").glob("*.jpg")))
    first, second = ({path.name.split("_")[0] for path in each} for each in passes)
    assert first
    assert second
    assert not first & second  # nothing is sent twice
    assert all(cv2.imread(str(path)) is not None for path in passes[0])
    confidences = [float(path.stem.split("_")[2]) for each in passes for path in each if "_keep_" in path.name]
    best_first = [float(path.stem.split("_")[2]) for path in passes[0] if "_keep_" in path.name]
    assert min(best_first) >= max(confidences[len(best_first) :], default=0) - 0.1  # smaller ones fill what is left
    again = satellite("capture", "builtin:student", CLIP, queue, "--rule", "keep if always else nothing")
    assert {path.name.split("_")[3] for path in passes[0]} == {open_bundle("builtin:student").short_hash + ".jpg"}
    assert again.startswith("242 keep")  # numbers went on: nothing was overwritten
    assert len(list(queue.glob("p*.jpg"))) + len(list((queue / "sent").glob("*.jpg"))) == 484


def test_losses_are_reported(tmp_path: Path) -> None:
    from spacepackets.ccsds import PacketId, PacketType, parse_space_packets_from_deque

    from spatialnet_edge.sinks.ccsds import SEGMENT, packets_of, receive, split

    pictures = {seq: np.random.default_rng(seq).bytes(5 * SEGMENT - 100 * seq) for seq in range(4)}
    stream: list[bytes] = []
    for seq, content in pictures.items():
        stream += packets_of(content, seq, "keep", 0.9, 42, 16_380 + len(stream), BUNDLE)  # the count wraps at 16,384
    assert list(split(b"".join(stream))) == stream
    theirs = parse_space_packets_from_deque(deque([b"".join(stream)]), [PacketId(PacketType.TM, False, 42)])
    assert len(theirs.tm_list if hasattr(theirs, "tm_list") else theirs) == len(
        stream
    )  # an independent parser reads the same packets
    whole = receive(stream)
    assert {seq: found.content for seq, found in whole.products.items()} == pictures
    assert {found.bundle for found in whole.products.values()} == {BUNDLE}
    assert (whole.lost, whole.damaged, whole.contradictory, whole.incomplete) == (0, 0, 0, {})
    damaged = bytearray(stream[7])
    damaged[20] ^= 4
    found = receive([*stream[:2], *stream[3:7], bytes(damaged), *stream[8:]])
    assert (found.lost, found.damaged) == (1, 1)
    assert found.incomplete == {0: 1, 1: 1}
    assert set(found.products) == {2, 3}


@pytest.mark.fault(62)
def test_a_packet_that_claims_65535_segments_costs_no_more_than_its_bytes() -> None:
    """Two thousand of them took 25 s and 5 GB when the missing segments were listed."""
    from spatialnet_edge.sinks.ccsds import HEAD, packer, receive

    make = packer(42)
    stream = [make(HEAD.pack(seq, 0, 65535, 1, 1, bytes(8)) + b"q", seq) for seq in range(2000)]
    tracemalloc.start()
    started = time.process_time()
    found = receive(stream)
    assert time.process_time() - started < 5
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert found.incomplete == dict.fromkeys(range(2000), 65534)


@pytest.mark.fault(62)
def test_a_contradictory_packet_is_counted_and_ignored() -> None:
    from spatialnet_edge.sinks.ccsds import HEAD, packer, packets_of, receive

    def crafted(index: int, count: int, sequence: int) -> bytes:
        return packer(42)(HEAD.pack(5, index, count, 1, 128, bytes(8)) + b"EVIL", sequence)

    good = packets_of(b"x" * 3000, 5, "keep", 0.5, 42, 0)
    found = receive([*good, crafted(0, 1, 3), crafted(3, 3, 4), crafted(0, 0, 5)])
    assert found.products[5].content == b"x" * 3000
    assert found.contradictory == 3
    alone = receive([crafted(0, 0, 0)])
    assert (alone.products, alone.incomplete, alone.contradictory) == ({}, {}, 1)


def test_a_power_loss_during_a_pass_sends_the_rest_later(tmp_path: Path) -> None:
    from store import Store

    store = Store(tmp_path)
    for seq, worth in enumerate((0.5, 0.9, 0.7)):
        store.add(worth, seq, "keep", b"x" * 100)
    store.add(0.99, 9, "thumbnail", b"y")
    assert [product.seq for product in store.waiting()] == [1, 2, 0, 9]
    store.mark_sent(next(store.waiting()))
    store.sequence = 77
    after = Store(tmp_path)  # after the power loss
    assert [product.seq for product in after.waiting()] == [2, 0, 9]
    assert after.sequence == 77
    assert after.next_number() == 10


def test_the_sink_sends_records_in_space_packets() -> None:
    import fastcrc
    from spacepackets.ccsds import SpacePacketHeader

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ground:
        ground.bind(("127.0.0.1", 0))
        ground.settimeout(2)
        sink = open_sink(f"ccsds+udp://127.0.0.1:{ground.getsockname()[1]}?apid=0x2a&budget=1000")
        for _ in range(30):
            sink.write(result(0.9))
        received = [ground.recv(4096) for _ in range(3)]
        sink.close()
    headers = [SpacePacketHeader.unpack(packet[:6]) for packet in received]
    assert [(header.apid, header.seq_count) for header in headers] == [(42, 0), (42, 1), (42, 2)]
    for packet, header in zip(received, headers, strict=True):
        assert header.packet_len == len(packet)
        assert fastcrc.crc16.ibm_3740(packet[:-2]) == int.from_bytes(packet[-2:], "big")
        assert unpack(packet[6:-2]).answers[0].label == 1
    assert sink.over_budget > 15  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="at most 0x7fe"):
        open_sink("ccsds+udp://127.0.0.1:9?apid=0x7ff")
