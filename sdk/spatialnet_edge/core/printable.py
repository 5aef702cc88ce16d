"""Escape untrusted text for display: names and labels of a bundle, file names, keys, messages of libraries.

A terminal interprets control characters; a right-to-left mark changes the displayed order; Matplotlib treats text between
dollar signs as mathematics. Text from outside this project passes through one of these functions before it is
shown: on a terminal by `cli/printer.py`, which also switches off rich's markup. In HTML, jinja's autoescape does the same.
"""

from __future__ import annotations

import re

import msgspec

UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
"""Control characters (C0, DEL, C1), direction marks, invisible characters, and unpaired surrogates."""


def printable(text: object, keep: str = "") -> str:
    r"""Replace every unsafe character by an escape such as `\\x1b` or `\\u202e`.

    Args:
        text: any object; `str(text)` is used.
        keep: unsafe characters to keep, such as a newline.
    """
    return UNSAFE.sub(lambda match: match[0] if match[0] in keep else _escaped(match[0]), str(text))


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def printable_json(line: bytes) -> str:
    r"""A line of JSON with every unsafe character as a JSON escape such as `\u001b`: it means the same and is safe on a terminal.

    Raises:
        ValueError: the line is not JSON in UTF-8, or is nested too deeply.
    """
    try:
        msgspec.json.decode(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return UNSAFE.sub(lambda match: "\t" if match[0] == "\t" else f"\\u{ord(match[0]):04x}", line.decode())


def plot_text(text: object) -> str:
    """Escape text for Matplotlib: dollar signs do not start mathematics."""
    return printable(text).replace("$", r"\$")
