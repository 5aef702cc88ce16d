"""Check the protobuf structure of an ONNX file before a library loads it: one self-contained graph that reads no other file.

The check follows the wire format as a protobuf parser does (protobuf.dev, Encoding; field numbers from onnx.proto), through
nested graphs, functions and attributes. It is stricter than a parser where no exporter needs the freedom. It refuses groups,
tags and lengths with more bytes than necessary, and known fields with another wire type. So two parsers cannot read the same
bytes differently.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_DEPTH = 32
MAX_FIELDS = 5_000_000
"""Limit for the number of fields of all messages together; a graph of a thousand nodes has some ten thousand."""
MAX_VARINT_BYTES = 10
ORT_MAGIC, ORT_MAGIC_AT = b"ORTM", 4
"""File identifier of ONNX Runtime's own format, a FlatBuffers file."""
READS_FILES = frozenset({b"EPContext", b"PyOp", b"PythonOp", b"PythonOpGrad"})
"""Operators that read another file or run its code: the context operator of ONNX Runtime's execution providers, and Python
operators."""

NESTED: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 8: "OperatorSet", 14: "Entry", 20: "Training", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Training": {1: "Graph", 2: "Graph"},
    "Tensor": {13: "ExternalData"},
    "OperatorSet": {},
    "Entry": {},
}
"""Message type to its fields that hold messages, as far as they lead to tensors and nodes."""
DATA_LOCATION, OP_TYPE, IR_VERSION, GRAPH, NODE = 14, 4, 1, 7, 1


@dataclass(slots=True)
class Walk:
    """Counters of one check."""

    fields: int = 0
    graphs: int = 0
    nodes: int = 0
    has_version: bool = False


def refuse_unsafe_graph(content: bytes) -> None:
    """Check that the bytes are one self-contained ONNX model.

    Raises:
        ValueError: another format, damaged, or a reference to an external file; the message says which.
    """
    if content[ORT_MAGIC_AT : ORT_MAGIC_AT + len(ORT_MAGIC)] == ORT_MAGIC:
        raise ValueError("ONNX Runtime's own format, not ONNX; export it as ONNX")
    walk = Walk()
    try:
        _message(memoryview(content), "Model", walk, 0)
    except (IndexError, RecursionError) as error:
        raise ValueError("not an ONNX model: a field is cut off") from error
    if not (walk.has_version and walk.graphs and walk.nodes):
        raise ValueError("not an ONNX model: it has no version, no graph or no node")


def _message(content: memoryview, kind: str, walk: Walk, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"graphs nested deeper than {MAX_DEPTH} messages")
    nested = NESTED[kind]
    for number, wire, value in _split(content, walk):
        child = nested.get(number)
        if child is not None and wire != BYTES:
            raise ValueError(f"field {number} of {kind} has wire type {wire}; expected a message")
        if child == "ExternalData":
            raise ValueError("refers to data outside the bundle; export it self-contained")
        _check(kind, number, wire, value, walk)
        if child is not None:
            assert isinstance(value, memoryview)
            _message(value, child, walk, depth + 1)


def _check(kind: str, number: int, wire: int, value: memoryview | int, walk: Walk) -> None:
    """Refuse a forbidden value of a single field."""
    if kind == "Tensor" and number == DATA_LOCATION and (wire != VARINT or value != 0):
        raise ValueError("refers to data outside the bundle; export it self-contained")
    if kind == "Node" and number == OP_TYPE and isinstance(value, memoryview) and bytes(value[:64]) in READS_FILES:
        raise ValueError(f"has a node {bytes(value).decode()}, which reads another file; export it without")
    walk.nodes += kind == "Graph" and number == NODE
    walk.graphs += kind == "Model" and number == GRAPH
    walk.has_version |= kind == "Model" and number == IR_VERSION and wire == VARINT


def _split(content: memoryview, walk: Walk) -> Iterator[tuple[int, int, memoryview | int]]:
    """Split a message into its fields: number, wire type and value (bytes, or a number for a varint)."""
    place, end = 0, len(content)
    while place < end:
        walk.fields += 1
        if walk.fields > MAX_FIELDS:
            raise ValueError(f"more than {MAX_FIELDS} fields")
        tag, place = _shortest_varint(content, place)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise ValueError(f"field number {number} is not possible")
        if wire == VARINT:
            value, place = _varint(content, place)
            yield number, wire, value
            continue
        if wire == BYTES:
            length, place = _shortest_varint(content, place)
        elif wire in (FIXED64, FIXED32):
            length = 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} of field {number}: not used by ONNX")
        if length > end - place:
            raise ValueError(f"field {number} is cut off: it has a length of {length} bytes, and {end - place} are left")
        yield number, wire, content[place : place + length]
        place += length


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    """Decode a varint of up to ten bytes, as parsers do. Returns the value and the position after it."""
    value = 0
    for index in range(MAX_VARINT_BYTES):
        byte = content[place + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value & (1 << 64) - 1, place + index + 1
    raise ValueError(f"a number of more than {MAX_VARINT_BYTES} bytes")


def _shortest_varint(content: memoryview, place: int) -> tuple[int, int]:
    """Decode a varint and refuse it if it is longer than necessary."""
    value, behind = _varint(content, place)
    if behind - place > 1 and content[behind - 1] == 0:
        raise ValueError("a tag or a length has more bytes than necessary")
    return value, behind
