"""A strict JSON parser: it accepts only input that every JSON parser reads in the same way."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn, cast

MAX_DEPTH = 32
MAX_INTEGER = 2**53 - 1
"""Largest integer that every JSON parser represents exactly (RFC 8259, section 6)."""
STRING, BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL), re.compile(rb"[\[\]{}]")
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters except tab and newline."""


def strict_json(raw: bytes) -> Any:
    """Parse JSON strictly: UTF-8, no duplicate keys, finite numbers, integers of at most 53 bits, no control characters in
    strings, at most 32 levels.

    Raises:
        ValueError: the input breaks one of these rules.
    """
    text = raw.decode("utf-8")  # json.loads would accept UTF-16 and UTF-32, which the depth check cannot read
    _check_depth(raw)
    parsed: Any = json.loads(
        text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite, parse_int=_integer
    )
    _check_strings(parsed)
    return parsed


def _check_depth(raw: bytes) -> None:
    depth = 0
    for match in BRACKET.finditer(STRING.sub(b"", raw)):
        depth += 1 if match[0] in b"[{" else -1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > len(str(MAX_INTEGER)) + 1 or abs(int(text)) > MAX_INTEGER:
        raise ValueError(f"the integer {text[:40]} has more than 53 bits")
    return int(text)


def _check_strings(value: Any) -> None:
    """Refuse control characters and unpaired surrogates.

    Raises:
        ValueError: a string has one of these.
    """
    if isinstance(value, str):
        if CONTROL.search(value):
            raise ValueError(f"the text {value[:40]!r} has control characters")
        value.encode("utf-8")
    elif isinstance(value, dict):
        for key, each in cast(dict[str, Any], value).items():
            _check_strings(key)
            _check_strings(each)
    elif isinstance(value, list):
        for each in cast(list[Any], value):
            _check_strings(each)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key '{key}' occurs twice in one object")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
