"""From what a caller names to sinks, each behind a bounded queue and a thread of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeAlias

from spatialnet_edge.core.errors import SinkError, SpatialNetError
from spatialnet_edge.sinks.queued import QueuedSink
from spatialnet_edge.sinks.registry import Sink, names_of, open_sink
from spatialnet_edge.sources.supervised import Report

Sinks: TypeAlias = "Sequence[str | Sink] | Mapping[str, str | Sink]"
"""URIs and open sinks; a mapping gives them the names that people see."""


def open_outputs(sinks: Sinks, live: bool, wait: bool, report: Report) -> list[QueuedSink]:
    """Put every sink behind its queue.

    Args:
        live: the oldest result in a full queue is dropped; otherwise the pipeline waits and nothing is lost.
        wait: a sink named by a URI that is absent, or fails later, is opened again and again.

    Raises:
        Refused, UsageError, SinkError: one cannot be opened; those that were are closed again.
    """
    named = sinks if isinstance(sinks, Mapping) else dict(zip(names_of([scheme(each) for each in sinks]), sinks, strict=True))
    opened: list[QueuedSink] = []
    try:
        for name, each in named.items():
            opened.append(_queued(name, each, live, wait, report))
    except BaseException:
        for each in opened:
            with suppress(SpatialNetError):
                each.close()
        raise
    return opened


def scheme(sink: str | Sink) -> str:
    """What a sink is called when it has no name of its own."""
    return sink if isinstance(sink, str) else sink.name if isinstance(sink, QueuedSink) else type(sink).__name__


def _queued(name: str, sink: str | Sink, live: bool, wait: bool, report: Report) -> QueuedSink:
    if isinstance(sink, QueuedSink):
        return sink
    if not isinstance(sink, str):
        return QueuedSink(sink, wait=not live, report=report, name=name)
    opened = _open_or_wait(sink, report) if wait else open_sink(sink)
    return QueuedSink(opened, wait=not live, reopen=partial(open_sink, sink) if wait else None, report=report, name=name)


def _open_or_wait(uri: str, report: Report) -> Sink | None:
    """A sink, or None for one whose peer is not there yet: a vehicle flies before its link is up."""
    try:
        return open_sink(uri)
    except SinkError as error:
        report("sink_failed", f"{error}; tried again until it opens")
        return None
