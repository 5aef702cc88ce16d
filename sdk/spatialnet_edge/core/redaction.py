"""Remove credentials from text that leaves the process: results, logs, events, health files, messages.

A URI may hold a user and a password (RFC 3986 §3.2.1), many cameras take them in the query (`?user=…&pwd=…`), and GStreamer's
`rtspsrc` as properties (`user-id=… user-pw=…`).
"""

from __future__ import annotations

import re

HIDDEN = "***"
USERINFO = re.compile(r"(?<=://)(?:[^\s/@?#'\"]*:[^\s'\"]*@|[^\s/?#'\"]*@)")
"""From `//` to the last `@`. People write `@`, `/`, `?` and `#` in passwords although the standard forbids it. So
`http://host:8080/a@b` loses its host: hiding too much is better than showing a password."""
PARAMETER = re.compile(
    r"(?i)(?<=[?&;\s!])((?:user(?:name|-id)?|login|usr|pass(?:word|wd)?|pwd|user-pw|token|secret|auth|api[_-]?key)=)[^&;\s'\"!]+"
)


def redacted(text: str) -> str:
    """The text with the credentials of every URI replaced by `***`."""
    if "=" in text:
        text = PARAMETER.sub(rf"\1{HIDDEN}", text)
    return USERINFO.sub(f"{HIDDEN}@", text) if "@" in text else text
