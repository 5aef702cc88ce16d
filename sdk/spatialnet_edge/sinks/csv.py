"""CSV sink: one row per frame, for spreadsheets and data frames (RFC 4180); appends to an existing file."""

from __future__ import annotations

import csv
import io
from collections import deque
from pathlib import Path
from typing import final

from spatialnet_edge.core.predictions import Classification, MultilabelPrediction, Prediction
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.sinks.jsonl import JsonLines

FRAME_COLUMNS = ("seq", "source", "captured_unix", "latitude", "longitude", "late", "reason")


@final
class CsvSink:
    """`csv:FILE?budget=BYTES_A_SECOND`; `-` is standard output. A new file begins with a row of column names. A file whose last
    row of names differs, because other heads were written before, gets a new one.

    A multiclass head has two columns, `HEAD` with the label and `HEAD_confidence`; a multilabel head has one, with the present
    labels joined by `;`; a regression head has one, with the value. A withheld prediction is empty.

    Raises:
        SinkRefused: the file cannot be written.
        SinkError: the disk is full.
    """

    wants_pixels = False

    def __init__(self, rest: str) -> None:
        self._lines = JsonLines("csv", rest)
        self._names = last_names(self._lines.path) if not self._lines.empty else b""

    @property
    def over_budget(self) -> int:
        return self._lines.over_budget

    def write(self, result: FrameResult) -> None:
        cells = {name: cell for head, answer in result.predictions.items() for name, cell in columns(head, answer).items()}
        names = row([*FRAME_COLUMNS, *cells])
        if names != self._names:
            self._lines.write_line(names, "the column names")
            self._names = names
        pose = result.frame.pose
        place = ("", "") if pose is None else (pose.latitude, pose.longitude)
        first = (
            result.seq,
            result.source,
            round(result.frame.captured_unix, 6),
            *place,
            int(result.late),
            result.reason or "",
        )
        self._lines.write_line(row([*first, *cells.values()]), f"frame {result.seq}")

    def close(self) -> None:
        self._lines.close()


def last_names(path: Path) -> bytes:
    """The last row of column names in a file; empty if there is none."""
    first = FRAME_COLUMNS[0].encode() + b","
    with path.open("rb") as lines:
        return next(iter(deque((line for line in lines if line.startswith(first)), maxlen=1)), b"")


def columns(head: str, answer: Prediction) -> dict[str, object]:
    """The columns of one head, by name."""
    if isinstance(answer, Classification):
        return {head: answer.label or "", f"{head}_confidence": round(answer.confidence, 4)}
    if isinstance(answer, MultilabelPrediction):
        return {head: ";".join(answer.present or ())}
    return {head: "" if answer.value is None else round(answer.value, 4)}


def row(cells: list[object]) -> bytes:
    """Cells as one line."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8", "backslashreplace")
