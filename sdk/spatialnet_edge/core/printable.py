"""Text from outside, made safe to show: names and labels of a bundle, file names, keys, what a library says.

A terminal obeys control characters; a right-to-left mark shows text in another order than it has; Matplotlib takes text between
dollar signs for mathematics. Text that was not written by this project goes through one of these functions before a person sees
it: on a terminal by `cli/printer.py`, which also switches off rich's markup. In HTML, jinja's autoescape does the same.
"""

from __future__ import annotations

import re

UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
"""Control characters (C0, DEL, C1), marks of direction, invisible ones, and halves of surrogate pairs."""


def printable(text: object, keep: str = "") -> str:
    r"""Text in which every unsafe character is written as `\x1b` or `\u202e`.

    Args:
        text: anything; `str` of it is taken.
        keep: unsafe characters to leave as they are, such as a newline.
    """
    return UNSAFE.sub(lambda match: match[0] if match[0] in keep else _escaped(match[0]), str(text))


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def plot_text(text: object) -> str:
    """Text for Matplotlib that is shown as it is: no mathematics between dollar signs."""
    return printable(text).replace("$", r"\$")
