"""Byte budget of a link: a token bucket with a capacity of one second. Also parsers for sink URIs."""

from __future__ import annotations

import math
import time
from typing import final
from urllib.parse import parse_qsl, urlsplit

from spatialnet_edge.core.errors import UsageError


@final
class Budget:
    """A token bucket for bytes.

    Args:
        bytes_per_second: 0: no limit.

    Attributes:
        refused: number of messages that exceeded the budget.
    """

    def __init__(self, bytes_per_second: float) -> None:
        self.refused = 0
        self._rate = bytes_per_second
        self._left = bytes_per_second
        self._at = time.monotonic()

    def allows(self, size: int) -> bool:
        """Take `size` bytes from the budget, or count a refusal."""
        if not self._rate:
            return True
        now = time.monotonic()
        self._left = min(max(self._rate, float(size)), self._left + (now - self._at) * self._rate)
        self._at = now
        if size > self._left:
            self.refused += 1
            return False
        self._left -= size
        return True


def path_and_budget(scheme: str, rest: str) -> tuple[str, Budget]:
    """Split `PATH?budget=BYTES_A_SECOND`; the path may contain other question marks.

    Raises:
        UsageError: the budget is not a number.
    """
    path, asked, amount = rest.rpartition("?budget=")
    if not asked:
        return rest, Budget(0)
    return path, Budget(number(scheme, {"budget": amount}, "budget"))


def parse_peer(scheme: str, rest: str, port: int, options: dict[str, str]) -> tuple[str, int, str, dict[str, str]]:
    """Parse `//host:port/path?name=value`.

    Args:
        port: the default.
        options: the known options, with their defaults.

    Returns:
        Host, port, path without its first slash, options.

    Raises:
        UsageError: not UTF-8, a `#`, no host, an invalid port, or an unknown option.
    """
    if "@" in rest:  # the text is not shown: it may contain part of a password
        raise UsageError(f"{scheme}: user and password are not allowed in this URI; expected {scheme}://HOST:PORT without '@'")
    if "#" in rest:
        raise UsageError(f"{scheme}:{rest}: '#' is not allowed in this URI; expected {scheme}://HOST:PORT")
    if not is_utf8(rest):
        raise UsageError(f"{scheme}: {rest!r}: not UTF-8 text; expected {scheme}://HOST:PORT")
    try:
        parts = urlsplit(f"{scheme}:{rest}")
        found_port = parts.port or port
    except ValueError as error:
        raise UsageError(f"{scheme}:{rest}: {error}") from error
    if not parts.hostname:
        raise UsageError(f"{scheme}:{rest}: no host; expected {scheme}://HOST:PORT")
    return parts.hostname, found_port, parts.path.lstrip("/"), options_of(f"{scheme}:{rest}", parts.query, options)


def is_utf8(text: str) -> bool:
    """Whether text can leave this computer: it has no bytes that were not UTF-8 (PEP 383)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def options_of(uri: str, query: str, defaults: dict[str, str]) -> dict[str, str]:
    """Parse `name=value&…` over the defaults.

    Raises:
        UsageError: an unknown option, or a null byte in a value.
    """
    where = uri.partition("?")[0]
    given = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := given.keys() - defaults.keys():
        raise UsageError(f"{where}: no option '{min(unknown)}'; available: {', '.join(defaults)}")
    if null := [name for name, value in given.items() if "\0" in value]:
        raise UsageError(f"{where}: the option '{null[0]}' contains a null byte (%00); remove it")
    return defaults | given


def number(scheme: str, options: dict[str, str], name: str) -> float:
    """Parse an option as a non-negative number; `0x` is allowed."""
    text = options[name]
    try:
        value = float(int(text, 0)) if text.lower().startswith("0x") else float(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{scheme}: {name}={text[:40]}: not a number, or too large") from error
    if value < 0 or not math.isfinite(value):
        raise UsageError(f"{scheme}: {name}={text}: must not be negative, infinite or nan")
    return value


def integer(scheme: str, options: dict[str, str], name: str, low: int, high: int) -> int:
    """Parse an option as an integer from `low` to `high`; `0x` is allowed."""
    value = number(scheme, options, name)
    if value != int(value) or not low <= value <= high:
        raise UsageError(f"{scheme}: {name}={options[name]}: expected a whole number from {low} to {high}")
    return int(value)
