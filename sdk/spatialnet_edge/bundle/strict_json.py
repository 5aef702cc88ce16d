"""A JSON parser that accepts only what every JSON reader reads alike."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn, cast

MAX_DEPTH = 32
MAX_INTEGER = 2**53 - 1
"""As far as every JSON reader counts (RFC 8259, section 6)."""
STRING, BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL), re.compile(rb"[\[\]{}]")
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters but tab and newline."""


def strict_json(raw: bytes) -> Any:
    """JSON that every reader understands alike: UTF-8, no key twice, finite numbers, integers of 53 bits, no control characters in
    strings, at most 32 levels.

    Raises:
        ValueError: it is something else.
    """
    text = raw.decode("utf-8")  # json.loads would guess UTF-16 and UTF-32, which the check of the depth does not see
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
    """Raises ValueError for control characters and for halves of surrogate pairs, which no UTF-8 can carry."""
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
            raise ValueError(f"the key '{key}' stands twice in one object")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
