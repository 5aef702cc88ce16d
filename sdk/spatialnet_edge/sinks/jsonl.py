"""One JSON object a line. Each line is written whole, so whatever happens next, the lines before it can be read."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import final

from spatialnet_edge.errors import SinkError
from spatialnet_edge.results import FrameResult


@final
class JsonlSink:
    """Appends nothing, overwrites the file: one run, one log. `-` is standard output."""

    def __init__(self, rest: str) -> None:
        self._where = rest or "-"
        self._closed = False
        try:
            if self._where == "-":
                self._descriptor = os.dup(sys.stdout.fileno())
            else:
                Path(self._where).parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(self._where, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        except OSError as error:
            raise SinkError(f"{self._where}: cannot be written: {error.strerror}; choose another path") from error

    def write(self, result: FrameResult) -> None:
        line = json.dumps(result.to_dict(), ensure_ascii=False, separators=(",", ":")) + "\n"
        remaining = memoryview(line.encode())
        try:
            while remaining:  # a pipe may take less than it was offered
                remaining = remaining[os.write(self._descriptor, remaining) :]
        except OSError as error:
            raise SinkError(f"{self._where}: writing frame {result.seq} failed: {error.strerror}") from error

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._descriptor)
