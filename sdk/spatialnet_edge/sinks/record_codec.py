"""Binary record of a result, for a radio, a socket, or flight software in C. Little-endian, fixed layout, version 2.

| offset | type | field |
|---|---|---|
| 0 | char[4] | `SNER` |
| 4 | u16 | version, 2 |
| 6 | u16 | bytes of the complete record, including the CRC |
| 8 | u64 | number of the frame |
| 16 | u64 | captured, monotonic clock, ns |
| 24 | u64 | captured, wall clock, µs since 1970 (UTC) |
| 32 | u32 | age at emit, µs |
| 36 | u16 | flags: 1 dark, 2 saturated, 4 late, 8 position known |
| 38 | u16 | number of predictions |
| 40 | i32, i32, i32 | latitude and longitude in 1e-7 degrees (WGS 84), altitude in mm, -2147483648 if unknown |
| 52 | u8[8] | bundle: the first bytes of its sha256; zeros if unknown |
| 60 | u8 | `known` in 1/254; 255 if the model has no such output |
| 61 | u8 | why no head has a label, see `REASONS`; 0 if the heads have labels |
| 62 | u16 | 0; reserved |
| 64 | 16 bytes each | predictions |
| end - 4 | u32 | CRC-32 (as in zlib) of everything before |

A prediction: u8 index of the head in the model, u8 kind (0 one label, 1 present labels, 2 quantity), i16 label (its
index in the head; -1 for no label and for other kinds), f32 confidence or quantity, u64 bits of the present labels.

The indices refer to the bundle with this hash: `spatialnet-edge inspect --json -` prints its names of heads and labels.
Version 1 had no hash. The C header is `firmware_examples/c_client/spatialnet_record.h`.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass

from typing_extensions import assert_never

from spatialnet_edge.core.errors import SinkError
from spatialnet_edge.core.frames import Pose
from spatialnet_edge.core.predictions import Classification, MultilabelPrediction, Prediction, RegressionPrediction
from spatialnet_edge.core.results import FrameResult

MAGIC, VERSION = b"SNER", 2
HEADER = struct.Struct("<4sHHQQQIHHiii8sBBH")
ANSWER = struct.Struct("<BBhfQ")
CRC = struct.Struct("<I")
DARK, SATURATED, LATE, PLACED = 1, 2, 4, 8
QUALITY = {"dark": DARK, "saturated": SATURATED}
ONE_LABEL, LABELS, QUANTITY = 0, 1, 2
UNSURE = -1
MOST_LABELS = 64
UNKNOWN = -(2**31)
"""Value of an unknown altitude."""
MOST_PLACE = 2**15 - 1
"""Largest label index: 15 bits."""
MOST_ANSWERS = 64
"""Limit of predictions, as in the C header."""
NO_BUNDLE = bytes(8)
KNOWN_STEPS, KNOWN_NOT_SAID = 254, 255
REASONS: tuple[str, ...] = ("unknown", "dark", "saturated", "featureless")
"""A record has the index of the reason here plus one. New reasons are added at the end."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One prediction of a record; `present` has label indices."""

    head: int
    kind: int
    label: int
    value: float
    present: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """A decoded record.

    Attributes:
        bundle: short hash of the bundle; None if the record has none.
        known: 0 to 1 in steps of 1/254; None if the model has no such output.
        reason: why no head has a label, one of `REASONS`; None if the heads have labels.
    """

    seq: int
    captured_ns: int
    captured_us: int
    age_us: int
    flags: int
    position: tuple[float, float, float | None] | None
    answers: tuple[Answer, ...]
    bundle: str | None = None
    known: float | None = None
    reason: str | None = None


def pack(result: FrameResult) -> bytes:
    """Encode a result as one record.

    Raises:
        SinkError: more than 64 heads, more than 64 labels of a multilabel head, or a label index above 32,767.
    """
    if len(result.heads) > MOST_ANSWERS:
        raise SinkError(
            f"a model of {len(result.heads)} heads does not fit a record, which has at most {MOST_ANSWERS} predictions"
        )
    answers = [_answer(result.heads.index(name), answer) for name, answer in result.predictions.items()]
    place = _place(result.frame.pose)
    flags = sum(QUALITY.get(name, 0) for name in result.quality) | (LATE if result.late else 0) | (PLACED if place else 0)
    size = HEADER.size + ANSWER.size * len(answers) + CRC.size
    frame = result.frame
    age_us = max(0, min(2**32 - 1, round(result.age_ms * 1e3)))
    head = HEADER.pack(
        MAGIC,
        VERSION,
        size,
        result.seq,
        frame.captured_ns,
        max(0, round(frame.captured_unix * 1e6)),
        age_us,
        flags,
        len(answers),
        *(place or (0, 0, 0)),
        bundle_bytes(result.bundle),
        KNOWN_NOT_SAID if result.known is None else round(result.known * KNOWN_STEPS),
        0 if result.reason is None else REASONS.index(result.reason) + 1,
        0,
    )
    body = head + b"".join(answers)
    return body + CRC.pack(zlib.crc32(body))


def bundle_bytes(short_hash: str | None) -> bytes:
    """The first eight bytes of a bundle's hash."""
    return NO_BUNDLE if short_hash is None else bytes.fromhex(short_hash)


def bundle_name(raw: bytes) -> str | None:
    """The short hash from `bundle_bytes`."""
    return None if raw == NO_BUNDLE else raw.hex()


def reason_name(number: int) -> str | None:
    """The reason for a number in a record; None for 0 and for reasons of later versions."""
    return REASONS[number - 1] if 0 < number <= len(REASONS) else None


def _place(pose: Pose | None) -> tuple[int, ...] | None:
    """Encode a position; altitudes are limited to 2,147 km. None without a pose, or if a value is not a number."""
    if pose is None or not all(map(math.isfinite, (pose.latitude, pose.longitude, pose.altitude or 0.0))):
        return None
    scaled = (pose.latitude * 1e7, pose.longitude * 1e7, (pose.altitude or 0.0) * 1e3)
    latitude, longitude, altitude = (round(max(UNKNOWN + 1, min(2**31 - 1, value))) for value in scaled)
    return latitude, longitude, UNKNOWN if pose.altitude is None else altitude


def unpack(content: bytes) -> Record:
    """Decode one record.

    Raises:
        ValueError: truncated, changed, or of another version.
    """
    if len(content) < HEADER.size + CRC.size or not content.startswith(MAGIC):
        raise ValueError(f"{len(content)} bytes that begin with {content[:4]!r}: not a record")
    _, version, size, seq, captured_ns, captured_us, age_us, flags, count, *more = HEADER.unpack_from(content)
    if version != VERSION:
        raise ValueError(f"a record of version {version}; this reads version {VERSION}")
    *place, bundle, known, reason, _ = more
    if size != len(content) or size != HEADER.size + ANSWER.size * count + CRC.size:
        raise ValueError(f"{len(content)} bytes; the record has a size of {size} with {count} predictions")
    if CRC.unpack(content[-CRC.size :])[0] != zlib.crc32(content[: -CRC.size]):
        raise ValueError("wrong CRC: the record was changed during transmission")
    answers = [
        Answer(head, kind, label, value, tuple(bit for bit in range(MOST_LABELS) if present >> bit & 1))
        for head, kind, label, value, present in ANSWER.iter_unpack(content[HEADER.size : -CRC.size])
    ]
    altitude = None if place[2] == UNKNOWN else place[2] / 1e3
    position = (place[0] / 1e7, place[1] / 1e7, altitude) if flags & PLACED else None
    return Record(
        seq,
        captured_ns,
        captured_us,
        age_us,
        flags,
        position,
        tuple(answers),
        bundle_name(bundle),
        None if known == KNOWN_NOT_SAID else known / KNOWN_STEPS,
        reason_name(reason),
    )


def _answer(place: int, answer: Prediction) -> bytes:
    match answer:
        case Classification():
            label = UNSURE if answer.label is None else answer.labels.index(answer.label)
            if label > MOST_PLACE:
                raise SinkError(f"label {label} of a head does not fit a record, which has indices up to {MOST_PLACE}")
            return ANSWER.pack(place, ONE_LABEL, label, answer.confidence, 0)
        case MultilabelPrediction():
            if len(answer.labels) > MOST_LABELS:
                raise SinkError(f"a head of {len(answer.labels)} labels does not fit a record, which has {MOST_LABELS} bits")
            bits = sum(1 << answer.labels.index(label) for label in answer.present or ())
            return ANSWER.pack(place, LABELS, UNSURE, max(map(float, answer.probabilities), default=0.0), bits)
        case RegressionPrediction():
            return ANSWER.pack(place, QUANTITY, UNSURE, math.nan if answer.value is None else answer.value, 0)
        case _:
            assert_never(answer)
