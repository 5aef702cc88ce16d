"""Coverage-guided fuzzing, by atheris, of every parser of untrusted bytes and text.

    pip install atheris -e .
    python tests/attacks/fuzz_parsers.py bundle -runs=1000000

The first argument names a parser of `PARSERS`. For any input, a parser returns a value or raises its
documented error. Anything else ends the run and saves the input in `crash-…`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

import atheris  # pyright: ignore[reportMissingImports]
import msgspec
import numpy as np

with atheris.instrument_imports(include=["spatialnet_edge", "tomllib", "urllib.parse", "zipfile"]):
    from spatialnet_edge.bundle.keys import TrustedKey
    from spatialnet_edge.bundle.manifest import Golden, Manifest, Provenance, decode_manifest, encode_manifest
    from spatialnet_edge.bundle.onnx_structure import refuse_unsafe_graph
    from spatialnet_edge.bundle.reader import MANIFEST, Bundle, open_bundle
    from spatialnet_edge.bundle.revocation import RevocationList, read_list, sign_list
    from spatialnet_edge.bundle.signature import sign
    from spatialnet_edge.bundle.slot_state import COPIES, State, read_state, write_state
    from spatialnet_edge.bundle.trust import Trust
    from spatialnet_edge.bundle.writer import file_records, write_raw
    from spatialnet_edge.core import plugins
    from spatialnet_edge.core.errors import BundleError, SpatialNetError
    from spatialnet_edge.core.frames import Frame
    from spatialnet_edge.core.pixels import decode_rgb, encode_png
    from spatialnet_edge.core.results import assemble
    from spatialnet_edge.core.spec import RGB, InputSpec, ModelSpec, Multilabel
    from spatialnet_edge.service.config import SECTIONS, ServiceConfig, SourceSection, parse_service_config
    from spatialnet_edge.sinks.ccsds import crc_and_ccsds, packets_of, receive, split
    from spatialnet_edge.sinks.journal_reader import read_segment, to_line
    from spatialnet_edge.sinks.mavlink import TunnelReader, split_record
    from spatialnet_edge.sinks.record_codec import pack, unpack
    from spatialnet_edge.sinks.registry import SINKS, check_sink
    from spatialnet_edge.sinks.routing import read_rule
    from spatialnet_edge.sources.pose import check_pose
    from spatialnet_edge.sources.registry import SOURCES, check_source

    for plugin in (*SOURCES.values(), *SINKS.values()):
        if plugin.parser is not None:
            import_module(plugin.parser.partition(":")[0])  # so that it is instrumented

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
ROOT = Path(__file__).resolve().parents[2]
ANYBODY = Trust(allow_unsigned=True)
SPEC = ModelSpec(
    name="fuzzed",
    input=InputSpec(height=8, width=8, groups=(RGB,)),
    heads=(Multilabel(name="objects", labels=("a", "b"), thresholds=(0.5, 0.5)),),
)
FRAME = encode_png(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
ANSWERS = b'{"objects": [[0.1, 0.9], [0, 1], [1, 0], [0, 0], [1, 1], [0.5, 0.5], [0, 0.1], [0.2, 1]]}'
FRAMES = tuple(f"golden/frame_{index:02d}.png" for index in range(8))
GRAPH = bytes.fromhex("08 0a 3a 0b 0a 09 22 07 53 6f 66 74 6d 61 78")
"""The smallest valid graph: `ir_version` 10 and one node `Softmax`."""


def files(frame: bytes, expected: bytes) -> dict[str, bytes]:
    """A bundle with correct hashes; all golden frames are `frame`."""
    contents = {"model.onnx": GRAPH, "golden/expected.json": expected} | dict.fromkeys(FRAMES, frame)
    manifest = Manifest(
        format=1,
        serial=1,
        spec=SPEC,
        files=file_records(contents),
        golden=Golden(frames=FRAMES, expected="golden/expected.json", tolerance=0.1),
        provenance=Provenance(created="2026-01-01T00:00:00+00:00", tool="fuzz", source="fuzz"),
    )
    return {MANIFEST: encode_manifest(manifest), **contents}


def whole_bundle() -> bytes:
    write_raw(FOLDER / "seed.snb", files(FRAME, ANSWERS))
    return (FOLDER / "seed.snb").read_bytes()


def record() -> bytes:
    rows = {"objects": np.array([0.25, 0.75], np.float32)}
    frame = Frame(np.zeros((2, 2, 3), np.uint8), 1, "fuzz")
    return pack(assemble(SPEC, frame, rows, 1.0, (), bundle="0123456789abcdef"))


def key() -> tuple[TrustedKey, bytes]:
    """A key that may revoke, and a list that it signed."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.from_private_bytes(bytes(32))
    trusted = TrustedKey(private.public_key(), may_revoke=True)
    return trusted, sign_list(RevocationList(1, ("0" * 32,)), private)


def open_whole(data: bytes) -> None:
    path = FOLDER / "input.snb"
    path.write_bytes(data)
    open_bundle(path, ANYBODY).golden()


@dataclass(frozen=True, slots=True)
class Memory:
    """Storage of a bundle in memory."""

    contents: Mapping[str, bytes]

    def sizes(self) -> Mapping[str, int]:
        return {path: len(content) for path, content in self.contents.items()}

    def read(self, path: str, limit: int) -> bytes:
        return self.contents[path][: limit + 1]


def open_golden(data: bytes) -> None:
    """The first byte selects a frame or the golden outputs as the rest; sizes and hashes are correct."""
    frame, answers = (data[1:], ANSWERS) if data[:1] == b"\0" else (FRAME, data[1:])
    contents = {"model.onnx": GRAPH, "golden/expected.json": answers} | dict.fromkeys(FRAMES, frame)
    manifest = msgspec.structs.replace(MANIFEST_OF_SEED, files=file_records(contents))
    Bundle(Path("input"), Memory(contents), manifest, "0" * 64, "unsigned").golden()


def judge(data: bytes) -> None:
    Trust({TRUSTED.id: TRUSTED}).at_install().check("input", b"{}", data)


def read_record(data: bytes) -> None:
    """Every accepted record is small, and its positions are numbers."""
    found = unpack(data)
    assert len(found.answers) * 16 < len(data)


def read_tunnel(data: bytes) -> None:
    reader = TunnelReader()
    for start in range(0, len(data), 128):
        reader.feed(data[start : start + 128])


def read_packets(data: bytes) -> None:
    """Packets with a correct CRC: the ground accepts any input, and its result is not larger than the input."""
    crc16, _ = crc_and_ccsds()
    packets = [
        part + crc16(part).to_bytes(2, "big") for start in range(0, len(data), 40) if (part := data[start : start + 40])
    ]
    found = receive([*packets, *split(data)])
    assert len(found.products) + len(found.incomplete) <= found.packets


def read_journal(data: bytes) -> None:
    """Every returned record is a line with a correct CRC in the input."""
    found = read_segment(data)
    assert all(to_line(text) in data for text in found.records)
    assert found.whole <= len(data)


def read_uri(data: bytes) -> None:
    """Sources, sinks and positions with their options, and rules; nothing is opened."""
    text = data.decode("utf-8", "surrogateescape")
    for parse in (check_source, check_sink, check_pose, lambda text: read_rule(text, SPEC)):
        with suppress(SpatialNetError):
            parse(text)


def read_configuration(data: bytes) -> None:
    parse_service_config(data, Path("payload.toml"))


def read_slots(data: bytes) -> None:
    """Two copies of the state, the second one valid: its serial is never lost."""
    (FOLDER / COPIES[0]).write_bytes(data)
    assert read_state(FOLDER, used=True).accepted.get("tiny", 0) >= 7


@dataclass(frozen=True, slots=True)
class Parser:
    """One parser.

    Attributes:
        read: parses the input.
        allowed: exceptions that it may raise.
        seeds: valid inputs for the start.
        longest: of an input, in bytes.
        words: that mutations insert.
    """

    read: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...]
    seeds: Callable[[], list[bytes]]
    longest: int = 20_000
    words: frozenset[str] = frozenset()


TRUSTED, LIST = key()
MANIFEST_OF_SEED = decode_manifest(files(FRAME, ANSWERS)[MANIFEST], "seed")
SMALL_MANIFEST = msgspec.json.encode(msgspec.json.decode(files(FRAME, ANSWERS)[MANIFEST]))
URIS = (
    """
keep if objects has a and p >= 0.5 else nothing
0?size=1280x720&fps=30&format=MJPG
rtsp://user:password@host:554/path
scene:S2.tif+S1.tif?tile=256&overlap=0&bands=4,3,2&scale=0.0001
gst:videotestsrc num-buffers=90
synthetic:frames=300&size=640x480&fps=0&seed=0&bands=3
faulty:ok*30,hang|ok*30#note
file:///a/b%20c.mp4
jsonl:results.jsonl?budget=100
video:out.mp4
log:results?segment_mb=16&total_mb=1024
unknown:doubtful?keep=20&total_mb=16&every_s=2&side=1280
udp://[::1]:99?budget=0x10
unix:/run/x.sock?budget=1
ccsds+udp://host:1?apid=0x2a&budget=1
mavlink:udpout:host:14550?system=1&baud=57600&key_file=x
mavlink:/dev/ttyTHS1?baud=921600&system=1&component=1
mqtts://host:8883/fleet/1?qos=1&cafile=a&certfile=b&keyfile=c&password_file=d&username=e
""".strip()
    .encode()
    .splitlines()
)
EXAMPLE = (ROOT / "firmware_examples" / "systemd" / "payload.toml").read_text()
CONFIGURATION = "\n".join(line.partition("  #")[0].rstrip() for line in EXAMPLE.splitlines() if line[:1] not in "#").encode()
OPTION_WORDS = frozenset({"?", "&", "%00", "%ff", "0x", "1e999", "nan", "-1", "://", "@", "[", "]"})
KEYS = frozenset(
    key for section in (ServiceConfig, SourceSection, *SECTIONS.values()) for key in section.__struct_fields__
) | {"[cameras.a]\n", "[[sources]]\n", "{camera}", "inf", " = ", "1e400", "queue:3", "every", "mavlink:"}
PARSERS = {
    "bundle": Parser(open_whole, (BundleError,), lambda: [whole_bundle()]),
    "manifest": Parser(
        lambda data: decode_manifest(data, "input"), (BundleError,), lambda: [SMALL_MANIFEST], 2 * len(SMALL_MANIFEST)
    ),
    "graph": Parser(refuse_unsafe_graph, (ValueError,), lambda: [GRAPH]),
    "golden": Parser(open_golden, (BundleError,), lambda: [b"\0" + FRAME, b"\1" + ANSWERS]),
    "picture": Parser(decode_rgb, (ValueError,), lambda: [FRAME]),
    "signature": Parser(judge, (BundleError,), lambda: [json.dumps({"algorithm": "ed25519"}).encode(), signed_by_nobody()]),
    "revocation": Parser(lambda data: read_list("input", data, {TRUSTED.id: TRUSTED}), (BundleError,), lambda: [LIST]),
    "state": Parser(read_slots, (), lambda: [(FOLDER / COPIES[1]).read_bytes(), b'{"tries":0,"accepted":{"tiny":3}}']),
    "record": Parser(read_record, (ValueError,), lambda: [record()]),
    "tunnel": Parser(read_tunnel, (ValueError,), lambda: split_record(record(), 1)),
    "ccsds": Parser(read_packets, (), lambda: [b"".join(packets_of(b"x" * 90, 1, "keep", 0.5, 42, 0))]),
    "journal": Parser(read_journal, (), lambda: [to_line(b'{"a":1}') + to_line(b"")]),
    "uri": Parser(read_uri, (), lambda: URIS, 300, OPTION_WORDS | SOURCES.keys() | SINKS.keys()),
    "configuration": Parser(
        read_configuration,
        (SpatialNetError,),
        lambda: [CONFIGURATION, *(b'[[sources]]\nuri = "0"\nsinks = ["%s"]' % uri for uri in URIS)],
        2 * len(CONFIGURATION),
        KEYS | SOURCES.keys() | SINKS.keys(),
    ),
}


def signed_by_nobody() -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return sign(b"{}", Ed25519PrivateKey.from_private_bytes(bytes([1] * 32)))


def main() -> None:
    parser = PARSERS[sys.argv.pop(1)]
    plugins.find_spec = cache(plugins.find_spec)  # a search on the disk, which depends on no input
    write_state(FOLDER, State(accepted={"tiny": 7}))
    corpus = Path(tempfile.mkdtemp())
    for number, seed in enumerate(parser.seeds()):
        (corpus / str(number)).write_bytes(seed)
    dictionary = FOLDER / "words"
    dictionary.write_text("".join(f"{json.dumps(word)}\n".replace("\\n", "\\x0a") for word in sorted(parser.words)))

    def one_input(data: bytes) -> None:
        with suppress(*parser.allowed):
            parser.read(data)

    options = [f"-max_len={parser.longest}"] + ([f"-dict={dictionary}"] if parser.words else [])
    atheris.Setup([*sys.argv, *options, str(corpus)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
