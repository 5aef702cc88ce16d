"""JSON Lines sink: one JSON object per line, appended to an existing file.

Each line is written completely, so earlier lines stay readable after any failure.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import msgspec

from spatialnet_edge.core.atomic_io import DATA_MODE
from spatialnet_edge.core.errors import ReaderGone, SinkError
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.sinks.budget import Budget, path_and_budget
from spatialnet_edge.sinks.file_errors import not_opened

encode_json = msgspec.json.Encoder().encode


def parse_jsonl(rest: str) -> tuple[str, Budget]:
    """Parse the path and the budget. Raises UsageError if the budget is not a number."""
    return path_and_budget("jsonl", rest)


@final
class JsonLines:
    """Appends lines to a file, which may hold the results from before a restart. An incomplete last line is terminated first,
    so that it damages no other line. `-` is standard output; `FILE?budget=BYTES_A_SECOND` drops objects above the budget.

    Args:
        overwrite: empty the file first.

    Attributes:
        path: of the file; `-` for standard output.
        empty: whether the file was empty when it was opened.

    Raises:
        SinkRefused: the file cannot be written.
        SinkError: the disk is full.
        UsageError: the budget is not a number.
    """

    def __init__(self, scheme: str, rest: str, overwrite: bool = False) -> None:
        where, self._budget = path_and_budget(scheme, rest)
        self._where = where or "-"
        self.path = Path(self._where)
        self._closed = self._torn = False
        self.empty = True
        try:
            if self._where == "-":
                self._descriptor = os.dup(sys.stdout.fileno())
            else:
                Path(self._where).parent.mkdir(parents=True, exist_ok=True)
                self._torn = not overwrite and is_torn(Path(self._where))
                self.empty = overwrite or not Path(self._where).is_file() or Path(self._where).stat().st_size == 0
                new = not Path(self._where).exists()
                kept = os.O_TRUNC if overwrite else os.O_APPEND
                self._descriptor = os.open(self._where, os.O_WRONLY | os.O_CREAT | kept, DATA_MODE)
                if new:
                    os.fchmod(self._descriptor, DATA_MODE)
        except OSError as error:
            raise not_opened(self._where, error) from error

    def write(self, record: Mapping[str, Any], what: str) -> None:
        """Write one object; `what` names it in the error.

        Raises:
            SinkError: the disk is full, or the reader of a pipe has closed it.
        """
        self.write_line(encode_json(record) + b"\n", what)

    def write_line(self, line: bytes, what: str) -> None:
        """Write one line, which ends with a line feed; as `write`."""
        if not self._budget.allows(len(line)):
            return
        remaining = memoryview(b"\n" + line if self._torn else line)
        try:
            while remaining:  # a pipe may accept only a part
                remaining = remaining[os.write(self._descriptor, remaining) :]
                self._torn = False
        except BrokenPipeError as error:
            if self._where == "-":
                raise ReaderGone(f"standard output: its reader has closed it; {what} was not written") from error
            raise SinkError(f"{self._where}: writing {what} failed: {error.strerror}") from error
        except OSError as error:
            raise SinkError(f"{self._where}: writing {what} failed: {error.strerror}") from error

    @property
    def over_budget(self) -> int:
        """Number of objects dropped because of the budget."""
        return self._budget.refused

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._descriptor)


def is_torn(path: Path) -> bool:
    """Whether a file's last line is incomplete."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


@final
class JsonlSink:
    """Writes every result as one object; see `FrameResult.to_dict`."""

    wants_pixels = False

    def __init__(self, rest: str, overwrite: bool = False) -> None:
        self._lines = JsonLines("jsonl", rest, overwrite)

    @property
    def over_budget(self) -> int:
        return self._lines.over_budget

    def write(self, result: FrameResult) -> None:
        self._lines.write(result.to_dict(), f"frame {result.seq}")

    def close(self) -> None:
        self._lines.close()
